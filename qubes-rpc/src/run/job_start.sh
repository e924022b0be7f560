# A command that outlives the call, in a folder of its own. In: job, what a command has, seconds (its deadline),
# segment, kept (how many pieces of each stream), minutes (after which what has ended is forgotten)
prepare() { enter && quick=1; }

# Pieces of the stream as they come; of many the first and the last ones. What cannot be kept is dropped.
pump() {
  local number=0 size
  local -a head=(stdbuf -o0 head)
  type -P stdbuf >/dev/null || head=(head)
  while "${head[@]}" -c "$segment" >"$folder/$1.$number" 2>/dev/null; do
    size=$(stat -c %s -- "$folder/$1.$number" 2>/dev/null)
    [[ $size = "$segment" ]] || return 0
    number=$((number + 1))
    if ((number >= kept)); then rm -f -- "$folder/$1.$((number - kept + 1))"; fi
  done
  cat >/dev/null
}

# Ends the job before its time. What is another user's root comes for, and is waited for a while.
halt() {
  local try
  trap '' USR1
  why=$1
  finish
  for ((try = 0; try < 100; try++)); do
    members "$leader" "$mark" "$leader"
    [ -z "$living" ] && return
    sleep 0.1
  done
}

# Watches over the job, apart from it and from the call.
guard() {
  local code why='exit' timer leader out err try stat
  rm -f -- "$folder/run"
  printf '%-63s\n' running >"$folder/end" && mkfifo -- "$folder/out" "$folder/err" || exit 1
  pump stdout <"$folder/out" >/dev/null &
  out=$!
  pump stderr <"$folder/err" >/dev/null &
  err=$!
  exec 4<&0 6>"$folder/out" 7>"$folder/err"
  rm -f -- "$folder/out" "$folder/err"
  trap 'halt stopped' USR1
  ( trap - INT QUIT; umask "$mask"; export SALT_BRIDGE_CALL=$mark; begin ) <&4 >&6 2>&7 4<&- 6>&- 7>&- &
  leader=$!
  exec 4<&- 6>&- 7>&- </dev/null
  IFS= read -rd '' stat <"/proc/$$/stat"
  set -- ${stat##*) }
  printf '%s %s %s %s\n' "$$" "${20}" "$(</proc/sys/kernel/random/boot_id)" "$leader" >"$folder/guard"
  printf 'begun\n'
  exec >/dev/null
  SALT_BRIDGE_CALL=$mark sleep "$seconds" &
  timer=$!
  wait -n "$leader" "$timer"
  code=$?
  if [ "$why" = exit ]; then
    if kill -0 "$leader" 2>/dev/null; then halt timeout; else leftovers; fi
  fi
  kill "$timer" 2>/dev/null
  for ((try = 0; try < 50; try++)); do     # what has detached itself may hold them open for ever
    kill -0 "$out" 2>/dev/null || kill -0 "$err" 2>/dev/null || break
    sleep 0.02
  done
  touch -c -- "$folder"                    # its age counts from here
  exec 8<>"$folder/end" && printf '%-63s\n' "$why $code $EPOCHSECONDS" >&8
}

forget() {
  local old
  while IFS= read -rd '' old; do
    runs "$old" || rm -rf -- "$old"
  done < <(find "$base" -mindepth 1 -maxdepth 1 -type d -mmin "+$minutes" -print0 2>/dev/null)
}

# With no descriptor of the call: bash holds some of its own.
apart() {
  local open
  for open in /proc/$BASHPID/fd/*; do
    open=${open##*/}
    case $open in 0 | 1 | 2 | 4 | 255) ;; *) eval "exec $open<&-" ;; esac
  done
  exec setsid bash "$folder/run" <&4 2>/dev/null 4<&-
}

job() {
  local mask begun=''
  mask=$(umask)
  umask 077
  mkdir -p -- "$base" && forget && mkdir -- "$folder" || return 1
  {
    declare -f enter begin leftovers members terminate finish pump halt guard
    local mark=$job
    declare -p mark job folder command words pairs seconds segment kept grace mask
    printf 'guard\n'
  } >"$folder/run" || return 1
  IFS= read -rt 20 -u 5 begun 5< <(apart)
  [ "$begun" = begun ]
}
