# Where a file goes, what it keeps of the one it replaces, and how it gets there. Before the scripts that write.

# Sets `place`, the file that a path leads to.
locate() {
  place=$1
  [[ $place = /* ]] || place=$PWD/$place
  if [[ $create_only && ( -e $place || -L $place ) ]]; then note exists; return 1; fi
  if [[ -L $place ]]; then
    place=$(readlink -f -- "$place" && printf .) || { printf 'a link to nowhere: No such file or directory\n' >&2; return 1; }
    place=${place%$'\n'.}
  fi
  if [[ -d $place || $place = */ ]]; then note directory; return 1; fi
}

# Before the content comes, so that the time of change is that of the content.
keep_attributes() {
  cp --attributes-only --preserve=all -T -- "$place" "$fresh" 2>/dev/null ||
    { chown -- "$(stat -c %u:%g -- "$place")" "$fresh" && chmod -- "$(stat -c %a -- "$place")" "$fresh"; } || return 1
  [[ $EUID = 0 || -G $place || $(stat -c %g -- "$place") = "$(stat -c %g -- "$fresh")" ]] || return 1
  [[ -z $mode ]] || chmod -- "$mode" "$fresh"
}

# In one step, and only where nothing is.
link_new() {
  ln -T -- "$fresh" "$place" 2>/dev/null && return
  if [[ -e $place || -L $place ]]; then note exists; return 1; fi
  # A file system without hard links.
  (set -C; exec >"$place" || exit 1; cat <"$fresh" || { rm -f -- "$place"; exit 1; })
}

# The time of change that was asked for.
stamp() { [[ -z $modified ]] || touch -md "@$modified" -- "$1"; }
