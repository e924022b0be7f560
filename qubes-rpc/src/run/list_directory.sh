# What a directory holds. In: path, depth, first and last (records, counted from 1)
# Records are PATH//TYPE SIZE MODE SECONDS TARGET, each with a NUL behind it, in the order of their bytes: no path holds two
# slashes. Behind them stands how many there are in all.
prepare() {
  export LC_ALL=C
  [[ $path = /* ]] || path=$PWD/$path
  if [[ ! -e $path && ! -L $path ]]; then printf 'No such file or directory\n' >&2; return 1; fi
  if [[ ! -d $path ]]; then printf 'Not a directory\n' >&2; return 1; fi
  if [[ ! -r $path || ! -x $path ]]; then printf 'Permission denied\n' >&2; return 1; fi
}

job() {
  set -o pipefail
  { find "${path%/}/" -mindepth 1 -maxdepth "$depth" -printf '%P//%y %s %m %T@ %l\0' 2>/dev/null || note unreadable; } |
    sort -z | sed -zn "$first,${last}p;\$="
}
