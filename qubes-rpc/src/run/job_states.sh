# The states of several jobs. In: jobs (bash's own words), segment
prepare() { export LC_ALL=C quick=1; }

job() {
  local job state total stdout
  local -a all=()
  eval "all=($jobs)"
  for job in "${all[@]}"; do
    folder=$base/$job
    if [[ ! -d $folder ]]; then note job "$job" 0 0 missing; continue; fi
    look
    measure stdout; stdout=$total
    measure stderr
    note job "$job" "$stdout" "$total" "$state"
  done
}
