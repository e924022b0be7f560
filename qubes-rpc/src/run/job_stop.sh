# Ends a job, and says whether its user could not kill all of it. In: job, segment, forget
prepare() { export LC_ALL=C; }

job() {
  local pid='' leader='' try state living=
  if runs "$folder"; then
    read -r pid _ _ leader _ <"$folder/guard"
    kill -USR1 "$pid" 2>/dev/null
    for ((try = 0; try < 60; try++)); do
      runs "$folder" || break
      sleep 0.05
    done
  fi
  [[ $leader =~ ^[0-9]{1,9}$ ]] || leader=none
  for ((try = 0; try < 20; try++)); do
    members "$leader" "$job"
    [ -z "$living" ] && break
    kill -KILL $living 2>/dev/null || break
    sleep 0.02
  done
  if [ -n "$living" ]; then note left; fi
  look
  if [[ ! -d $folder ]]; then state=missing; fi
  note state "$state"
  if [[ $forget && -z $living ]]; then rm -rf -- "$folder"; fi
}
