# A finished file moved to its place, in one step. In: path, target, mode, create_only, modified
# `fresh` is the name under which it stands beside its place, from where a rename never copies.
prepare() {
  export LC_ALL=C
  existed='' fresh=''
  [[ $path = /* ]] || path=$PWD/$path
  if [[ -d $path ]]; then note directory; return 1; fi
  if [[ ! -e $path && ! -L $path ]]; then printf 'No such file or directory\n' >&2; return 1; fi
  if [[ -L $path || ! -f $path ]]; then printf 'only a plain file can be moved\n' >&2; return 1; fi
  locate "$target" || return 1
  [[ -e $place ]] && existed=1
  # What is not a plain file of one's own cannot be given back its owner.
  if [[ $existed && ! ( -f $place && -w $place && ( $EUID = 0 || -O $place ) ) ]]; then
    printf 'Permission denied\n' >&2
    return 1
  fi
}

tidy() { [[ -z $fresh || $fresh = "$path" ]] || rm -f -- "$fresh"; }

job() {
  local parent=${place%/*}/
  [[ -d $parent ]] || mkdir -p -- "$parent" || return 1
  sync -d -- "$path" || return 1           # a name that outlives a power cut must not lead to less than the content
  if [[ ${path%/*}/ -ef $parent ]]; then fresh=$path
  else
    ln -T -- "$path" "$parent.salt-bridge-$mark" || return 1
    fresh=$parent.salt-bridge-$mark
  fi
  if [[ $existed ]]; then keep_attributes && touch -m -- "$fresh" || return 1
  elif [[ $mode ]]; then chmod -- "$mode" "$fresh" || return 1
  fi
  stamp "$fresh" || return 1
  if [[ $create_only ]]; then link_new && rm -f -- "$fresh" || return 1
  else mv -fT -- "$fresh" "$place" || return 1
  fi
  [[ $fresh = "$path" ]] || rm -f -- "$path"
  note written "${existed:-0}"
  printf %s "$place"
}
