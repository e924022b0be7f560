# What all scripts know of jobs. In: job (32 hexadecimal digits, also the mark of its processes), segment
# A job has a folder of its user's. There are `guard`, who watches over it, `end`, padded so that it can be
# overwritten on a full disk, and its output in pieces of `segment` bytes: stdout.0 and the last ones.
base=~/.salt-bridge/jobs
folder=$base/$job

# Whether the guard of the job in this folder runs: that number, begun at that time, since this boot.
runs() {
  local stat='' pid born boot
  [[ -f $1/guard ]] && { read -r pid born boot _ <"$1/guard"; } 2>/dev/null || return 1
  [[ $pid =~ ^[0-9]{1,9}$ && $boot = "$(</proc/sys/kernel/random/boot_id)" ]] || return 1
  { IFS= read -rd '' stat <"/proc/$pid/stat"; } 2>/dev/null
  set -- ${stat##*) }                      # behind the name: state is the first, the beginning the 20th
  [[ $1 != Z && ${20} = "$born" ]]
}

# Sets `state`: running, lost, or how it ended, its code, and when.
look() {
  local why code at try
  state=lost
  for try in 1 2; do                       # the guard may end between the two looks
    [[ -f $folder/end ]] && { read -r why code at _ <"$folder/end"; } 2>/dev/null
    case $why in
      'exit' | timeout | stopped)
        # The user could have written anything there.
        [[ $code =~ ^[0-9]{1,3}$ && $at =~ ^[0-9]{1,12}$ ]] && state="$why $code $at"
        return ;;
    esac
    if runs "$folder"; then state=running; return; fi
  done
}

# Sets `total` to how many bytes came on a stream.
measure() {
  local file number last=-1 size
  for file in "$folder/$1".*; do
    number=${file##*.}
    [[ $number =~ ^(0|[1-9][0-9]{0,9})$ ]] && ((number > last)) && last=$number
  done
  total=0
  if ((last >= 0)); then
    size=$(stat -c %s -- "$folder/$1.$last" 2>/dev/null)
    total=$((last * segment + ${size:-0}))
  fi
}
