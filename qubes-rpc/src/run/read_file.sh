# A range of a file to stdout. In: path, offset, length (empty: all that is left)
job() {
  local size end
  export LC_ALL=C
  if [[ -d $path ]]; then note directory; return 1; fi
  exec 5<"$path" || return 1
  size=$(stat -Lc '%s %f' /proc/self/fd/5) || return 1
  note stat $size
  # Behind the end of a plain file is nothing; those of /proc have no size but content.
  end=${size% *}
  [[ $end = 0 ]] && end=$((1 << 40))
  if [[ $size = *' '8* && $offset -ge $end ]]; then return 0; fi
  if [[ $offset = 0 && -z $length ]]; then exec cat <&5; fi
  exec dd bs=256K iflag=skip_bytes,fullblock${length:+,count_bytes} skip="$offset" ${length:+count="$length"} status=none <&5
}
