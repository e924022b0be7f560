# Whether the qube reaches a port, each part under a line of ours on stdout. In: host, port
# The exit code of a program is a part of its own behind it. A missing program says nothing.
part() {
  printf '%s part %s\n' "$nonce" "$1"
  shift
  command -v "$1" >/dev/null && "$@" 2>&1
}
job() {
  export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
  part interfaces ip -j addr show
  part routes ip -j route show
  part routes6 ip -6 -j route show
  part dns cat /etc/resolv.conf
  local code
  part addresses timeout 5 getent ahosts "$host"
  code=$?
  part addresses-exit printf %s "$code"
  [ "$code" = 0 ] || return 0
  part connect timeout 5 bash -c 'exec 6<>"/dev/tcp/$1/$2"' bash "$host" "$port"
  code=$?
  part connect-exit printf %s "$code"
  return 0
}
