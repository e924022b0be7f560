# A range of a file to stdout, or its SHA-256. In: path, offset, length (empty: all that is left), digest, attributes
prepare() {
  export LC_ALL=C
  run='exec'
  if [[ $digest || $attributes ]]; then run=; fi
  if [[ -d $path ]]; then note directory; return 1; fi
  [[ -f $path ]] || return 0               # opening a pipe waits for its writer, so `job` does it
  exec 5<"$path" && describe || return 1
  # Files of /proc have no size but content, and some of them wait.
  if (( size > 0 && size <= 1 << 20 )); then quick=1 run=; fi
}

# Sets `size`, and `end`, behind which nothing is read.
describe() {
  before=$(stat -Lc '%s %f %Y %Z %i' /proc/self/fd/5) || return 1
  note stat ${before% * *}
  size=${before%% *} end=$((1 << 62))
  if [[ -f $path ]]; then end=$((size ? size : 1 << 40)); fi
}

job() {
  local sum
  if [[ ! -f $path ]]; then exec 5<"$path" && describe || return 1; fi
  if [[ $digest ]]; then
    set -o pipefail
    sum=$(range | sha256sum) || return 1
    note sha256 "${sum%% *}"
  else range || return 1
  fi
  [[ -z $attributes || $(stat -Lc '%s %f %Y %Z %i' /proc/self/fd/5) = "$before" ]] || note changed
}

range() {
  if (( offset >= end )); then return 0; fi
  if [[ $offset = 0 && -z $length ]]; then $run cat <&5
  else
    $run dd bs=256K iflag=skip_bytes,fullblock${length:+,count_bytes} skip="$offset" ${length:+count="$length"} status=none <&5
  fi
}
