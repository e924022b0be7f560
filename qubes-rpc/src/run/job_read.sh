# The state of a job and a range of one stream. In: job, segment, stream, from (negative: so many bytes before the
# end), seconds (to wait for news at `from`, or for the end where that is negative), length
prepare() {
  export LC_ALL=C
  if [[ ! -d $folder ]]; then note missing; return 1; fi
  if ((seconds == 0)); then quick=1; fi
}

# Waits until there is news, and sets what `look` and `measure` do.
await() {
  local pause=5 end=$((${EPOCHREALTIME/[.,]/} + seconds * 1000000))
  exec 9<> <(:)                            # nothing ever comes here
  while :; do
    look
    measure "$stream"
    if [[ $state != running ]] || ((from >= 0 && total > from)); then return; fi
    ((${EPOCHREALTIME/[.,]/} < end)) || return
    read -rt "0.$((pause / 10))$((pause % 10))" -u 9
    ((pause < 50)) && pause=$((pause + 5))
  done
}

job() {
  local state total stdout stderr begin end piece
  await
  measure stdout; stdout=$total
  measure stderr; stderr=$total
  [[ $stream = stdout ]] && total=$stdout
  begin=$((from < 0 ? (total + from > 0 ? total + from : 0) : (from < total ? from : total)))
  while ((begin < total)) && [[ ! -f $folder/$stream.$((begin / segment)) ]]; do
    begin=$(((begin / segment + 1) * segment))
  done
  ((begin > total)) && begin=$total
  end=$((total - begin > length ? begin + length : total))
  note state "$state"
  note sizes "$stdout" "$stderr"
  note range "$begin"
  while ((begin < end)) && [[ -f $folder/$stream.$((begin / segment)) ]]; do
    piece=$((segment - begin % segment))
    ((piece > end - begin)) && piece=$((end - begin))
    dd bs=64K iflag=skip_bytes,count_bytes,fullblock skip=$((begin % segment)) count="$piece" status=none \
      <"$folder/$stream.$((begin / segment))" 2>/dev/null || return 0
    begin=$((begin + piece))
  done
}
