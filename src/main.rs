//! The program `salt-bridge`: nothing but the library's entry.

fn main() -> std::process::ExitCode {
    salt_bridge::run(std::env::args_os())
}
