#!/bin/bash
# Tries an installed Salt Bridge from dom0, end to end, and prints one page to send back.
# Changes nothing that stays: it starts the target if it is halted, and writes one file below its
# /tmp, which it removes.
set -uo pipefail
export LC_ALL=C PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin

usage() {
  cat <<'TEXT'
usage: sudo smoke.sh AGENT TARGET

Run it as root in dom0 after `saltbridged install AGENT TARGET`. TARGET is a qube that AGENT may
do everything with that a bare name grants. The page holds names of qubes and versions, no content.
TEXT
}

case ${1-} in
  --help | -h) usage; exit 0 ;;
esac
if [ $# -ne 2 ]; then
  usage >&2
  exit 2
fi
agent=$1 target=$2
for name in "$agent" "$target"; do
  [[ $name =~ ^[a-zA-Z][a-zA-Z0-9_.-]{0,30}$ ]] || { printf 'not the name of a qube: %q\n' "$name" >&2; exit 2; }
done
if [ "$(id -u)" -ne 0 ]; then
  echo 'run it as root: sudo smoke.sh AGENT TARGET' >&2
  exit 2
fi
for tool in saltbridged qvm-run systemctl timeout; do
  command -v "$tool" >/dev/null || { printf '%s is missing: this is no dom0 with Salt Bridge\n' "$tool" >&2; exit 2; }
done

work=$(mktemp -d)
file=/tmp/salt-bridge-smoke-$RANDOM$RANDOM
# shellcheck disable=SC2317  # called by trap
clean_up() {
  in_qube "$target" "rm -f $file" >/dev/null 2>&1
  rm -rf -- "$work"
}
trap clean_up EXIT

passed=0 failed=0
# row RESULT NAME DETAIL: a line of the page; the detail is cut to one line.
row() {
  local detail=${3//$'\n'/ / }
  printf '%-5s %-34s %s\n' "$1" "$2" "${detail:0:150}"
  case $1 in
    ok) passed=$((passed + 1)) ;;
    FAIL) failed=$((failed + 1)) ;;
  esac
}

# holds NAME COMMAND...: ok when the command succeeds.
holds() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then row ok "$name" "${said##*$'\n'}"; else row FAIL "$name" "$said"; fi
}

# in_qube QUBE COMMAND: as its user, with the input and output of this script.
in_qube() {
  timeout 120 qvm-run --pass-io --no-gui --no-color-output --no-color-stderr -- "$1" "$2"
}

# call SERVICE REQUEST: what the agent is answered; the time it took goes to $work/ms.
call() {
  local began ended code
  began=$(date +%s%N)
  printf '%s\n' "$2" | in_qube "$agent" "qrexec-client-vm dom0 saltbridge.$1"
  code=$?
  ended=$(date +%s%N)
  printf '%d' $(((ended - began) / 1000000)) >"$work/ms"
  return "$code"
}

# answers NAME SERVICE REQUEST WANTED: ok when the answer holds what is wanted.
answers() {
  local said code
  said=$(call "$2" "$3" 2>&1)
  code=$?
  if [[ $said == *"$4"* && $said != ERROR:* ]]; then
    row ok "$1" "$(cat "$work/ms") ms, through qvm-run"
  else
    row FAIL "$1" "exit $code: $said"
  fi
}

# refused NAME SERVICE REQUEST: ok when qrexec or the daemon refuses.
refused() {
  local said code
  said=$(call "$2" "$3" 2>&1)
  code=$?
  if [[ $code -eq 126 || $said == *'Request refused'* || $said == ERROR:*refused* ]]; then
    row ok "$1" "refused, exit $code"
  else
    row FAIL "$1" "NOT refused, exit $code: $said"
  fi
}

echo "Salt Bridge smoke page, $(date -u +%Y-%m-%dT%H:%M:%SZ), agent $agent, target $target"
echo
echo '-- machine'
row - release "$(cat /etc/qubes-release 2>&1)"
for package in qubes-core-dom0 qubes-core-qrexec-dom0 systemd rpm salt-bridge; do
  row - "package" "$(rpm -q "$package" 2>&1)"
done
row - 'kernel, Xen' "$(uname -r), $(xl info 2>/dev/null | sed -n 's/^xen_version *: *//p')"
row - 'SELinux' "$(getenforce 2>/dev/null || echo none)"
program=$(command -v saltbridged)
row - "$program" "$(saltbridged --version) $(sha256sum <"$program" | cut -c 1-64)"

echo '-- units'
for unit in salt-bridge.socket salt-bridge-tcp-policy.socket; do
  holds "$unit" systemctl is-active "$unit"
  holds "$unit at boot" systemctl is-enabled "$unit"
done
row - 'exposure' "$(systemd-analyze security --no-pager salt-bridge.service 2>/dev/null | tail -n 1)"

echo '-- doctor'
doctor=$(saltbridged doctor 2>&1)
code=$?
if [ "$code" -eq 0 ]; then row ok doctor "$(tail -n 1 <<<"$doctor")"; else row FAIL doctor "exit $code"; fi
grep -v -e '^good' -e '^$' <<<"$doctor" | cut -c 1-160 | head -n 12
holds "Qubes' own parser of policy" qubes-policy-lint /etc/qubes/policy.d/30-salt-bridge.policy

echo '-- calls'
before=$(saltbridged audit tail --json 2>/dev/null | wc -l)
answers 'list' VmList '{}' "$target|"
answers 'start' "VmStart+$target" '{}' ''
answers 'command' "VmExec+$target" '{"cmd":"expr 40 + 2"}' '42'
answers 'command again' "VmExec+$target" '{"cmd":"expr 40 + 2"}' '42'
answers 'command as root' "VmExecRoot+$target" '{"cmd":"id -u"}' '0'
answers 'exit code' "VmExec+$target" '{"cmd":"exit 3"}' 'EXIT CODE: 3'
answers 'write' "VmWriteFile+$target" "{\"path\":\"$file\",\"content\":\"smoke \\u00e4 line\\n\"}" ''
answers 'read back' "VmReadFile+$target" "{\"path\":\"$file\"}" 'smoke ä line'
answers 'firewall rules' "FirewallList+$target" '{}' 'accept'
answers 'network' "VmNetworkInfo+$target" '{}' '=== Qubes Properties ==='
answers 'TCP rules' ConnectTcpPolicy '{"action":"list"}' ''
big=$(printf '{"cmd":"head -c 8388608 /dev/zero"}\n' |
  in_qube "$agent" "qrexec-client-vm dom0 saltbridge.VmExec+$target" 2>/dev/null | wc -c)
if [ "$big" -eq 8388608 ]; then row ok '8 MiB of output' "$(((big + 1023) / 1024)) KiB"; else row FAIL '8 MiB of output' "$big bytes"; fi

echo '-- hang-up'
mark=salt-bridge-smoke-$RANDOM$RANDOM
printf '{"cmd":"exec -a %s sleep 300"}\n' "$mark" |
  timeout 5 qvm-run --pass-io --no-gui -- "$agent" "timeout 3 qrexec-client-vm dom0 saltbridge.VmExec+$target" >/dev/null 2>&1
sleep 6
left=$(in_qube "$target" "pgrep -c -f '^$mark ' || true" 2>/dev/null)
if [ "${left:-?}" = 0 ]; then row ok 'command dies with its caller' 'none left'; else row FAIL 'command dies with its caller' "left: ${left:-unknown}"; fi

echo '-- refusals'
refused 'dom0 as target' VmExec+dom0 '{"cmd":"id"}'
refused 'the agent itself' "VmExec+$agent" '{"cmd":"id"}'
refused 'a qube that is not there' VmExec+no-such-qube-here '{"cmd":"id"}'
refused 'a service that is not there' "VmNoSuch+$target" '{}'
said=$(printf '{}\n' | in_qube "$target" 'qrexec-client-vm dom0 saltbridge.VmList' 2>&1)
code=$?
if [ "$code" -eq 126 ]; then row ok 'another caller' 'refused, exit 126'; else row FAIL 'another caller' "exit $code: $said"; fi

echo '-- afterwards'
holds 'audit chain' saltbridged audit verify
row - 'audit lines' "$before in the tail before, $(saltbridged audit tail --json 2>/dev/null | wc -l) after"
row - 'memory of the daemon' "$(systemctl show --property=MemoryCurrent,MemoryPeak,TasksCurrent salt-bridge.service 2>&1 | tr '\n' ' ')"
row - 'warnings in the journal' "$(journalctl --no-pager -q -b -u salt-bridge -u salt-bridge-tcp-policy -p warning 2>/dev/null | wc -l)"
denied=$(journalctl --no-pager -q -b -k --grep 'avc:.*saltbridged|seccomp.*saltbridged' 2>/dev/null | tail -n 2)
row - 'denied by the kernel' "${denied:-nothing}"
echo
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
