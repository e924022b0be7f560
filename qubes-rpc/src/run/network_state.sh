# What the qube knows of its network, each part under a line of ours on stdout. A missing tool says nothing.
part() {
  printf '%s part %s\n' "$nonce" "$1"
  shift
  command -v "$1" >/dev/null && "$@" 2>&1
}
# A file without a process of its own, as each takes a millisecond or more.
file() {
  local -a lines=()
  mapfile -t lines <"$1" && ((${#lines[@]})) && printf '%s\n' "${lines[@]}"
}
job() {
  export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
  part interfaces ip -4 addr show
  part interfaces-json ip -j addr show
  part routes ip -4 route show
  part routes-json ip -j route show
  part routes6-json ip -6 -j route show
  part dns file /etc/resolv.conf
  part wireguard wg show
  part iptables-nat iptables -w 2 -t nat -L -n
  part iptables-filter iptables -w 2 -t filter -L -n
  part nftables nft list ruleset
  return 0
}
