# A directory, with what is missing above it. In: path, mode, create_only, modified
prepare() {
  export LC_ALL=C
  existed='' quick=1
  [[ $path = /* ]] || path=$PWD/$path
  while [[ $path = ?*/ ]]; do path=${path%/}; done
  if [[ $create_only && ( -e $path || -L $path ) ]]; then note exists; return 1; fi
  if [[ -d $path ]]; then existed=1
  elif [[ -e $path || -L $path ]]; then printf 'Not a directory\n' >&2; return 1
  fi
}

job() {
  if [[ ! $existed ]]; then
    [[ -d ${path%/*}/ ]] || mkdir -p -- "${path%/*}/" || return 1
    mkdir ${mode:+-m "$mode"} -- "$path" || return 1
  elif [[ $mode ]]; then chmod -- "$mode" "$path" || return 1
  fi
  stamp "$path" || return 1
  note written "${existed:-0}"
  printf %s "$path"
}
