# Makes the fresh folder, and nothing where the copy may not stand. In: overwrite
prepare() {
  arrange
  if there "$place" && [[ ! $overwrite ]]; then note exists; return 1; fi
}
job() {
  [[ -d ${place%/*}/ ]] || mkdir -p -- "${place%/*}/" || return 1
  mkdir -m 700 -- "$fresh" || return 1
  note written 0
}
