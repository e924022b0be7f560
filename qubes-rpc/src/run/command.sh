# The caller's command, in a session of its own and with nothing of this shell but the mark.
# In: command, or words: a program and its arguments; cwd; pairs for the environment. Lists are bash's own words.
prepare() { enter; }

enter() {
  local why
  if [[ $cwd ]]; then
    [[ $cwd = /* ]] || cwd=./$cwd          # neither an option nor `-`, the folder before
    CDPATH='' cd -- "$cwd" 2>/dev/null && return
    why=$(LC_ALL=C CDPATH='' cd -- "$cwd" 2>&1)
    why=${why##*: } && note cwd "${why:0:100}"
    return 1
  fi
}

# What becomes of the caller's environment must not change which programs of ours are found.
begin() {
  local -a environment=() program=()
  eval "environment=($pairs) program=($words)"
  if [[ $words ]]; then program=(-c 'exec -- "$@"' bash "${program[@]}"); else program=(-c "$command" bash); fi
  if [[ $pairs ]]; then
    hash setsid bash
    exec env "${environment[@]}" "${BASH_CMDS[setsid]}" "${BASH_CMDS[bash]}" "${program[@]}"
  else
    exec setsid bash "${program[@]}"
  fi
}

launch() {
  ( trap - INT QUIT; export SALT_BRIDGE_CALL=$mark; begin ) <&4 3<&- 4<&- &
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
