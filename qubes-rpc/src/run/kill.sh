# Run as root after work whose processes its own user could not kill. In: session (or group), victim (the mark of the
# work, or empty), proof (that mark)
# The number of the session comes from the qube's user, who could name root's own. So only what the kernel shows to
# come from the work is killed: what has carried its mark since it was begun, what is in a session that such a one
# leads, and what descends from either. Without a victim, of these only the group.
ours() {
  local stat pid before=-1
  local -A inside=() parent=() group=() of=()
  for pid in $(grep -lszxF "SALT_BRIDGE_CALL=$proof" /proc/[0-9]*/environ); do
    pid=${pid#/proc/}; inside[${pid%/*}]=1
  done
  for pid in /proc/[0-9]*/stat; do
    stat=; { IFS= read -rd '' stat <"$pid"; } 2>/dev/null
    pid=${pid#/proc/}; pid=${pid%/*}
    set -- ${stat##*) }                    # behind the name: state, parent, group, session
    case $1 in '' | Z | X) unset "inside[$pid]"; continue ;; esac
    parent[$pid]=$2 group[$pid]=$3 of[$pid]=$4
  done
  until [ "$before" = "${#inside[@]}" ]; do
    before=${#inside[@]}
    for pid in "${!parent[@]}"; do
      if [ -n "${inside[${parent[$pid]}]}" ] || [ -n "${inside[${of[$pid]}]}" ]; then inside[$pid]=1; fi
    done
  done
  unset "inside[1]"
  living=
  for pid in "${!inside[@]}"; do
    if [ -n "$victim" ] || [ "${group[$pid]}" = "$session" ]; then living+=" $pid"; fi
  done
}

job() {
  local try
  for ((try = 0; try < 40; try++)); do
    ours
    [ -z "$living" ] && return 0
    kill -KILL $living
    sleep 0.05
  done 2>/dev/null
  return 1
}
