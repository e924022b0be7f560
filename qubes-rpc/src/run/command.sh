# The caller's command, in a session of its own and with nothing of this shell but the mark. In: command
launch() {
  ( trap - INT QUIT; SALT_BRIDGE_CALL=$mark exec setsid bash -c "$command" ) <&4 3<&- 4<&- &
  leader=$!
}

# Ends what the work left in its own group after a normal end.
leftovers() {
  if kill -0 -- "-$leader"; then
    terminate "-$leader"
    kill -KILL -- "-$leader"
  elif [[ $(LC_ALL=C; kill -0 -- "-$leader" 2>&1) = *permitted* ]]; then
    left=$leader
  fi
} 2>/dev/null
