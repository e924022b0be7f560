#!/bin/bash
# Salt Bridge: installs it in dom0. Fetches one program out of a qube, shows and compares its
# SHA-256, and hands over to its `install`, which does everything else and can undo it.
#
# Run in dom0, in two steps, since a pipe into bash and qvm-run both want standard input:
#   qvm-run -p <agent-vm> 'cat /home/user/salt-bridge/dom0-install.sh' > sb-install.sh
#   bash sb-install.sh <agent-vm> <target-vm>[:powers] [...]
set -euo pipefail

# A build for debugging, with its line numbers, fits; an endless answer does not fill dom0.
most_bytes=$((128 * 1024 * 1024))

usage() {
  cat >&2 <<'USAGE'
Usage: bash sb-install.sh <agent-vm> <target-vm>[:powers] [...] [options]

  <agent-vm>         The qube in which the agent runs.
  <target-vm>        A qube that it may manage; powers are, separated by commas, see, lifecycle,
                     exec, root, files, net and shape. Without powers: all but shape.

  --from VM          Fetch the program from this qube instead of the agent's.
  --path PATH        Where it is there (default: /usr/local/bin/saltbridged).
  --sha256 DIGEST    Refuse any other program.
  --tag TAG[:powers] The agent may manage every qube with this tag as well.
  --compat NAME      Also answer the calls of another program's client.
  --dry-run          Show what would be done.
  --yes              Do not ask.
  --force            Let an older version replace a newer one.
  --json             Answer in JSON.

The new list replaces what the agent could do before.
USAGE
  exit 2
}

fail() {
  printf 'ERROR: %s; nothing was changed\n' "$1" >&2
  exit 1
}

from=
path=/usr/local/bin/saltbridged
digest=
yes=
qubes=()
options=()
while [ "$#" -gt 0 ]; do
  case $1 in
    --from=* | --path=* | --sha256=* | --tag=* | --compat=* | --root=*)
      set -- "${1%%=*}" "${1#*=}" "${@:2}"
      continue
      ;;
    --from | --path | --sha256 | --tag | --compat | --root)
      [ "$#" -ge 2 ] || usage
      case $1 in
        --from) from=$2 ;;
        --path) path=$2 ;;
        --sha256) digest=${2,,} ;;
        --tag | --compat | --root) options+=("$1=$2") ;;
      esac
      shift
      ;;
    --dry-run | --yes | --force | --json)
      case $1 in --yes | --json) yes=1 ;; esac
      options+=("$1")
      ;;
    -*) usage ;;
    *) qubes+=("$1") ;;
  esac
  shift
done
[ "${#qubes[@]}" -ge 1 ] || usage
[ "${#qubes[@]}" -ge 2 ] || [[ " ${options[*]-}" == *" --tag="* ]] || usage
[ -n "$from" ] || from=${qubes[0]}
# It becomes an argument of qvm-run; whether it is a qube, qvm-run says.
[[ $from =~ ^[a-zA-Z][a-zA-Z0-9_.-]*$ ]] || fail "'$from' is no name of a qube"
[ -z "$digest" ] || [[ $digest =~ ^[0-9a-f]{64}$ ]] || fail "'$digest' is no SHA-256"

umask 077
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
program=$folder/saltbridged

# One byte more than allowed tells that there is more. Cutting it off there may fail qvm-run.
{ qvm-run -p "$from" "cat -- $(printf %q "$path")" </dev/null || printf failed >"$folder/failed"; } |
  head -c "$((most_bytes + 1))" >"$program"
bytes=$(stat -c %s -- "$program")
[ "$bytes" -le "$most_bytes" ] || fail "$path in $from is larger than $most_bytes bytes"
[ ! -e "$folder/failed" ] || fail "cannot read $path in $from"
[ "$bytes" -gt 0 ] || fail "$path in $from is empty"
[ "$(head -c 4 -- "$program" | od -An -tx1 | tr -d ' \n')" = 7f454c46 ] ||
  fail "$path in $from is no program (ELF)"
found=$(sha256sum -- "$program")
found=${found%% *}
printf 'Program: %s bytes from %s:%s\nSHA-256: %s\n' "$bytes" "$from" "$path" "$found" >&2
if [ -n "$digest" ]; then
  [ "$found" = "$digest" ] || fail "the SHA-256 should be $digest"
elif [ -z "$yes" ] && [ -t 0 ] && [ -t 2 ]; then
  printf 'Is this the digest you expect? It will run as root in dom0. [y/N] ' >&2
  read -r answer
  [[ ${answer,,} =~ ^y(es)?$ ]] || fail "as you said"
fi
chmod 0700 -- "$program"

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo --)
code=0
"${as_root[@]}" "$program" install "${options[@]}" -- "${qubes[@]}" || code=$?
exit "$code"
