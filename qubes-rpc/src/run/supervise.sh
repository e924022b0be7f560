# The frame around one piece of work in a qube. dom0 puts assignments before it and the work's own text after it:
#   nonce  begins every line of ours, and nobody but this shell knows it    mark   a name for all processes of the call
#   limit  the deadline in milliseconds    grace  seconds from SIGTERM to SIGKILL
#   count  bytes of the body that follow on the pipe, then one dot    format  or the body itself, as a format of printf
# Descriptor 3 is dom0's pipe, 4 becomes the work's stdin.
# The work's text defines `job`, and where it needs them `prepare`, `receive`, `launch`, `tidy` and `leftovers`.
# What sets `quick` while it prepares is so soon done that nobody needs to watch over it.

note() {
  local try
  for ((try = 0; try < 1200; try++)); do   # the work may have left the pipe non-blocking
    printf '%s %s\n' "$nonce" "$*" >&2 2>/dev/null && return
    sleep 0.05
  done
}
both() { note "$@" 2>&1; note "$@"; }

prepare() { :; }
tidy() { :; }
leftovers() { :; }

# Counted bytes from the pipe to descriptor 5, and the dot that proves that none is missing.
counted() {
  local dot=
  dd bs=64K iflag=fullblock,count_bytes count="$count" status=none <&3 >&5 || return 1
  IFS= read -rN 1 -u 3 dot
  [ "$dot" = . ] || { cut=1; return 1; }
}

# An unread body on the pipe would hide the hang-up behind it, so it is taken off whole before the work starts.
spool() {
  local file=${TMPDIR:-/tmp}/.salt-bridge-$mark
  (umask 077; set -C; : >"$file") && exec 5>"$file" 4<"$file" || return 1
  rm -f -- "$file"
  counted || return 1
  exec 5>&-
}
receive() {
  if [ "$count" -gt 0 ]; then spool
  elif [ -n "$format" ]; then exec 4< <(printf -- "$format" 3<&-)
  fi
}

# Sets `living` to the processes of this group or session, those with this mark, the one with a number, if that is
# given, and all that descend from them; without a mark to those of the group alone.
members() {
  local stat pid before=-1 number=$3
  local -A inside=() parent=()
  if [ -n "$2" ]; then
    for pid in $(grep -lszxF "SALT_BRIDGE_CALL=$2" /proc/[0-9]*/environ); do
      pid=${pid#/proc/}; inside[${pid%/*}]=1
    done
  fi
  for pid in /proc/[0-9]*/stat; do
    stat=; { IFS= read -rd '' stat <"$pid"; } 2>/dev/null
    pid=${pid#/proc/}; pid=${pid%/*}
    set -- "$1" "$2" ${stat##*) }          # behind the name: state, parent, group, session
    case $3 in '' | Z | X) unset "inside[$pid]"; continue ;; esac
    parent[$pid]=$4
    if [[ $pid = "$number" || $5 = "$1" || ( -n $2 && $6 = "$1" ) ]]; then inside[$pid]=1; fi
  done
  until [ -z "$2" ] || [ "$before" = "${#inside[@]}" ]; do
    before=${#inside[@]}
    for pid in "${!parent[@]}"; do [ -n "${inside[${parent[$pid]}]}" ] && inside[$pid]=1; done
  done
  living=${!inside[*]}
}

# SIGTERM, and then until they are gone at most the grace.
terminate() {
  local end=$((${EPOCHREALTIME/[.,]/} + grace * 1000000)) pause=0.01
  kill -TERM -- "$@"; kill -CONT -- "$@"
  while kill -0 -- "$@" && [ "${EPOCHREALTIME/[.,]/}" -lt "$end" ]; do
    sleep "$pause"
    pause=0.1
  done
}

# Ends all that belongs to the work. `living` tells what could not be killed. Until its first program begins, the
# leader has neither group nor mark, but its number.
finish() {
  local try denied=
  members "$leader" "$mark" "$leader"
  [ -z "$living" ] && return
  terminate $living
  for try in 1 2 3 4 5; do
    members "$leader" "$mark" "$leader"
    [ -z "$living" ] || [ -n "$denied" ] && return
    kill -KILL $living || denied=1         # not one of them
    sleep 0.02
  done
  members "$leader" "$mark" "$leader"
} 2>/dev/null

launch() {
  set -m                                   # a group of its own
  ( set +m; export SALT_BRIDGE_CALL=$mark; job ) <&4 3<&- 4<&- &
  leader=$!
  set +m
}

# Nothing comes on the pipe any more: its end is the hang-up, and silence for the whole limit the deadline.
# What could not be killed, because it is another user's, would keep `main` waiting; dom0 sends root.
# A signal that comes just before `read` begins to wait is seen only when it ends, so it waits in slices.
watch() {
  local why=142 left slice=50000 end
  end=$((${EPOCHREALTIME/[.,]/} + limit * 1000))
  trap 'exit 0' USR1
  while left=$((end - ${EPOCHREALTIME/[.,]/})); [ "$why" -gt 128 ] && [ "$left" -gt 0 ]; do
    [ "$left" -gt "$slice" ] && left=$slice
    printf -v left '%d.%06d' $((left / 1000000)) $((left % 1000000))
    read -rN 1 -t "$left" -u 3
    why=$?
    [ "$slice" -lt 1000000 ] && slice=$((slice * 2))
  done
  trap '' USR1
  if [ "$why" -gt 128 ]; then why=3; else why=4; fi
  finish
  if [ -n "$living" ]; then
    case $why in 3) kill -USR2 $$ ;; 4) kill -URG $$ ;; esac
  fi
  exit "$why"
}

main() {
  local cut='' quick='' code watcher why stuck='' left=''
  exec 4</dev/null
  if ! { prepare && receive; }; then
    tidy
    if [ -n "$cut" ]; then both cut 0; else both unready 1; fi
    exit
  fi
  both ready
  if [ -n "$quick" ]; then
    job <&4
    code=$?
    tidy
    both exit "$code"
    exit
  fi
  trap 'stuck=timeout' USR2                # either ends the waits below
  trap 'stuck=cancelled' URG
  launch
  ( watch ) >/dev/null 2>&1 4<&- &
  watcher=$!
  exec 3<&- 4<&-
  { wait "$leader"; code=$?; } 2>/dev/null
  # Once a signal has ended a wait, bash may wait for ever for another process.
  if [ -z "$stuck" ]; then
    kill -USR1 "$watcher" 2>/dev/null
    { wait "$watcher"; why=$?; } 2>/dev/null
    case $why in
      3) why=timeout ;;
      4) why=cancelled ;;
      *) why='exit' ;;
    esac
  fi
  if [ -n "$stuck" ]; then why=$stuck left=$leader
  elif [ "$why" = exit ]; then leftovers
  fi
  tidy
  both "$why" "$code" $left
  exit
}
