# Run as root after work whose processes its own user could not kill. In: session, victim (its mark, or empty)
job() {
  local try
  for ((try = 0; try < 40; try++)); do
    members "$session" "$victim"
    [ -z "$living" ] && return 0
    kill -KILL $living
    sleep 0.05
  done 2>/dev/null
  return 1
}
