# Sets `place`, where a copy is to stand, and `fresh`, the folder beside it into which it comes first. In: target, token
arrange() {
  export LC_ALL=C PATH=$PATH:/usr/lib/qubes
  place=$target
  [[ $place = /* ]] || place=$PWD/$place
  while [[ $place = ?*/ ]]; do place=${place%/}; done
  fresh=${place%/*}/.salt-bridge-$token
}
there() { [[ -e $1 || -L $1 ]]; }
# Also where folders were sent that their owner may not write.
remove() {
  local try
  for try in 1 2 3 4 5; do
    chmod -R u+rwX -- "$1"
    rm -rf -- "$1" && return
    sleep 0.2                              # the unpacker may still be ending
  done 2>/dev/null
  return 1
}
