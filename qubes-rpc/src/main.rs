//! `saltbridged`: dom0's side of Salt Bridge. See the library for everything.

fn main() -> std::process::ExitCode {
    qubes_rpc::run(std::env::args_os())
}
