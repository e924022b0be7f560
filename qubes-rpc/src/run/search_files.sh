# Lines that match, from all files below a place. In: path, pattern, fixed, ignore_case, glob, context
# Lines come as PATH NUL NUMBER and a colon, or a dash where they only stand around a match.
prepare() {
  export LC_ALL=C
  local said
  while [[ $path = ./* ]]; do path=${path#./}; done
  if [[ $path = . || -z $path ]]; then path=$PWD
  elif [[ $path != /* ]]; then path=$PWD/$path
  fi
  if [[ ! -e $path ]]; then printf 'No such file or directory\n' >&2; return 1; fi
  kind=-E
  if [[ $fixed ]]; then kind=-F; fi
  said=$(grep "$kind" -e "$pattern" </dev/null 2>&1)
  if (( $? > 1 )); then note pattern "${said:0:150}"; return 1; fi
}

job() {
  grep -rIHnsZ "$kind" ${ignore_case:+-i} ${context:+-C "$context"} --color=never --directories=recurse --devices=skip \
    ${glob:+"--include=$glob"} -e "$pattern" -- "$path"
  case $? in
    0 | 1) ;;
    2) note unreadable ;;
    *) return 1 ;;
  esac
}
