# Moves what arrived to its place, by renames alone. In: overwrite
prepare() { shopt -s dotglob nullglob; arrange; }
job() {
  local found=("$fresh"/*) mode='' existed=0
  if (( ${#found[@]} != 1 )); then printf 'not exactly one file or directory arrived\n' >&2; return 1; fi
  if [[ -d $found && ! -L $found && ! -w $found ]]; then
    mode=$(stat -c %a -- "$found") && chmod u+w -- "$found" || return 1
  fi
  if there "$place"; then
    existed=1
    if [[ ! $overwrite ]]; then note exists; return 1; fi
  fi
  if [[ $existed = 0 ]]; then
    mv -nT -- "$found" "$place" || return 1
    if there "$found"; then note exists; return 1; fi
  elif [[ ( -d $place && ! -L $place ) || ( -d $found && ! -L $found ) ]]; then
    mv -T -- "$place" "$fresh-old" || return 1
    if ! mv -T -- "$found" "$place"; then mv -nT -- "$fresh-old" "$place"; return 1; fi
    remove "$fresh-old"
  else mv -fT -- "$found" "$place" || return 1
  fi
  [[ -z $mode ]] || chmod -- "$mode" "$place"
  remove "$fresh"
  note written "$existed"
  printf %s "$place"
}
