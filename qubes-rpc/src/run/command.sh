# The caller's command, in a session of its own and with nothing of this shell but the mark. In: command
launch() {
  ( trap - INT QUIT; SALT_BRIDGE_CALL=$mark exec setsid bash -c "$command" ) <&4 3<&- 4<&- &
  leader=$!
}
