# A file written whole or not at all. In: path, mode, append, create_only, digest, offset (the length that the file must
# have), modified (seconds since 1970), and count or format
# `place` is the file itself, behind symlinks. `fresh` is what takes its place; without it `place` is written through.
prepare() {
  local parent near
  export LC_ALL=C
  existed='' fresh=''
  locate "$path" || return 1
  [[ -e $place ]] && existed=1
  parent=${place%/*}/ near=${place%/*}/
  until [[ -d $near ]]; do near=${near%/}; near=${near%/*}/; done
  if [[ $existed && ! -w $place ]]; then printf '%s: Permission denied\n' "$place" >&2; return 1; fi
  [[ $append || $place = /proc/* || $place = /sys/* ]] && return
  if [[ $existed ]]; then
    # Only a plain file that can be given back its owner is replaced.
    [[ -f $place && -w $near && ( $EUID = 0 || -O $place ) ]] || return 0
  fi
  set -C; fresh=$near.salt-bridge-$mark
  { exec 5>"$fresh"; } || { fresh=; set +C; return 1; }
  set +C
  if [[ $existed ]]; then
    keep_attributes || { tidy; fresh=; exec 5>&-; }
  elif [[ $mode ]]; then chmod -- "$mode" "$fresh" || return 1
  fi
  [[ $fresh && -z $digest ]] && quick=1
  return 0
}

receive() {
  if [[ -z $fresh ]]; then
    if [ "$count" -gt 0 ]; then spool
    elif [[ $format ]]; then exec 4< <(printf -- "$format" 3<&-)
    fi
  else
    if [ "$count" -gt 0 ]; then counted
    elif [[ $format ]]; then printf -- "$format" >&5
    fi && exec 5>&-
  fi
}

tidy() { [[ $fresh && -e $fresh ]] && rm -f -- "$fresh"; }

job() {
  local actual='' size=''
  if [[ $offset ]]; then
    if [[ -f $place ]]; then size=$(stat -c %s -- "$place") || return 1; fi
    if [[ $size != "$offset" ]]; then note length "$size"; return 1; fi
  fi
  if [[ $digest ]]; then
    if [[ $existed ]]; then actual=$(sha256sum <"$place") || return 1; fi
    if [[ ${actual%% *} != "$digest" ]]; then note digest "${actual%% *}"; return 1; fi
  fi
  [[ -d ${place%/*}/ ]] || mkdir -p -- "${place%/*}/" || return 1
  [[ -z $fresh ]] || stamp "$fresh" || return 1
  if [[ -z $fresh ]]; then through && stamp "$place" || return 1
  elif [[ $create_only ]]; then link_new || return 1
  else mv -fT -- "$fresh" "$place" || return 1
  fi
  note written "${existed:-0}"
  printf %s "$place"
}

through() {
  if [[ $append ]]; then
    size=0
    if [[ -f $place ]]; then size=$(stat -c %s -- "$place") || return 1; fi
    cat <&0 >>"$place" || { truncate -s "$size" -- "$place"; return 1; }
  else
    cat <&0 >"$place" || return 1
  fi
  [[ -z $mode ]] || chmod -- "$mode" "$place"
}
