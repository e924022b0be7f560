//! An `eth0` that leads nowhere, so that a qube shows a network like a real one's.

use crate::spawn;

/// Ways to make an interface, the likeliest first. None of them leads out of the qube.
const INTERFACES: [&str; 3] = [
    "link add eth0 type veth peer name vif0\nlink set vif0 up\n",
    "link add eth0 type dummy\n",
    "tuntap add dev eth0 mode tap\n",
];

/// Gives the network namespace of this process an address and a route. Without the program `ip`
/// or the right to make an interface the qube has no network to show, which is no error.
pub(super) fn configure(address: &str, gateway: &str) {
    let rest = format!(
        "link set eth0 up\naddr add {address}/32 dev eth0\nlink set lo up\n\
         route add {gateway} dev eth0 scope link\n\
         route add default via {gateway} dev eth0 onlink\n"
    );
    for interface in INTERFACES {
        if spawn::ip(&format!("{interface}{rest}")).is_ok_and(|status| status.success()) {
            return;
        }
    }
}
