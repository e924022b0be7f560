#!/bin/bash
# Salt Bridge @VERSION@: installs again, and changes what an agent may do, without any qube.
# Holds the program of dom0 and its digest; the program does everything else.
set -euo pipefail

version=@VERSION@
sha256=@SHA256@

usage() {
  cat >&2 <<'USAGE'
Usage: salt-bridge-update.sh <agent-vm> <target-vm>[:powers] [...] [--tag TAG[:powers]] [--dry-run] [--yes] [--force]

Replaces what the agent may do, and Salt Bridge itself by the version in this script.
--force goes back to an older version than the installed one.
USAGE
  exit 2
}

[ "$#" -ge 1 ] || usage
case $1 in
  -h | --help) usage ;;
  --version) printf 'salt-bridge-update.sh %s\n' "$version"; exit 0 ;;
esac

if [ "$(id -u)" -ne 0 ]; then
  exec sudo -- bash "$0" "$@"
fi

umask 077
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
program=$folder/saltbridged

sed '1,/^__PROGRAM__$/d' -- "$0" | base64 -d >"$program" || {
  printf 'ERROR: %s is damaged; nothing was changed\n' "$0" >&2
  exit 1
}
found=$(sha256sum -- "$program")
if [ "${found%% *}" != "$sha256" ]; then
  printf 'ERROR: %s is damaged: its program has not the SHA-256 %s; nothing was changed\n' "$0" "$sha256" >&2
  exit 1
fi
chmod 0700 -- "$program"
code=0
"$program" install "$@" || code=$?
exit "$code"

__PROGRAM__
