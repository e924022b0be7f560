//! An `eth0` that leads nowhere, so that a qube shows a network like a real one's.

use crate::spawn;

/// Gives the network namespace of this process an address and a route. Without the program `ip`
/// or the right to make an interface the qube has no network to show, which is no error.
pub(super) fn configure(address: &str, gateway: &str) {
    let script = format!(
        "ip link set lo up
        ip link add eth0 type dummy ||
            {{ ip link add eth0 type veth peer name vif0 && ip link set vif0 up; }} ||
            ip tuntap add dev eth0 mode tap || exit
        printf '%s\\n' 'addr add {address}/32 dev eth0' 'link set eth0 up' \
            'route add {gateway} dev eth0 scope link' \
            'route add default via {gateway} dev eth0 onlink' | ip -force -batch -"
    );
    drop(spawn::quietly(&script));
}
