//! `salt-bridge-sim`, and every program that it puts into the folder of a host.

fn main() -> std::process::ExitCode {
    salt_bridge_sim::run(std::env::args_os())
}
