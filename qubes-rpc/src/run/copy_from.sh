# The qube's own program that sends files, on the pipes to and from dom0. In: nonce, path, recursive, seconds
export LC_ALL=C PATH=$PATH:/usr/lib/qubes
[[ $path = /* ]] || path=$PWD/$path
path=$(readlink -e -- "$path" && printf .) || { printf 'No such file or directory\n' >&2; exit 1; }
path=${path%$'\n'.}
if [[ -d $path && ! $recursive ]]; then printf 'Is a directory\n' >&2; exit 1; fi
if [[ ! -r $path ]]; then printf 'Permission denied\n' >&2; exit 1; fi
agent=$(type -P qfile-agent) || { printf 'the qube has no qfile-agent\n' >&2; exit 1; }
printf '%s ready\n' "$nonce"
unset -v PROGRESS_TYPE
exec timeout -k 1 "$seconds" "$agent" "$path" <&3 3<&-
