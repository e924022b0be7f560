//! Power: start, shutdown, kill, pause, unpause, suspend, resume.

use super::{Call, nothing};
use crate::{Destination, Request};

/// How to shut a qube down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// Answer when it is down; qubesd waits for the qube's own `shutdown_timeout`, then fails.
    pub wait: bool,
    /// Also when it is paused, or when other qubes are connected to it (these are detached).
    pub force: bool,
}

/// Starts a qube; answers when it runs. A qube that runs or is paused is left as it is.
pub fn start(destination: Destination) -> Call<()> {
    Call::new(Request::new("admin.vm.Start", destination), nothing)
}

/// Asks a qube to shut down.
pub fn shutdown(destination: Destination, how: Shutdown) -> Call<()> {
    let argument = match (how.force, how.wait) {
        (false, false) => "",
        (false, true) => "wait",
        (true, false) => "force",
        (true, true) => "force+wait",
    };
    Call::new(Request::new("admin.vm.Shutdown", destination).argument(argument), nothing)
}

/// Stops a qube at once; answers when it is down.
pub fn kill(destination: Destination) -> Call<()> {
    Call::new(Request::new("admin.vm.Kill", destination), nothing)
}

/// Makes a running qube stand still.
pub fn pause(destination: Destination) -> Call<()> {
    Call::new(Request::new("admin.vm.Pause", destination), nothing)
}

/// Makes a paused qube go on.
pub fn unpause(destination: Destination) -> Call<()> {
    Call::new(Request::new("admin.vm.Unpause", destination), nothing)
}

/// Puts a qube to sleep. New in R4.3.
pub fn suspend(destination: Destination) -> Call<()> {
    Call::new(Request::new("admin.vm.Suspend", destination), nothing)
}

/// Wakes a sleeping qube. New in R4.3.
pub fn resume(destination: Destination) -> Call<()> {
    Call::new(Request::new("admin.vm.Resume", destination), nothing)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, work};
    use super::*;

    #[test]
    fn each_change_of_power_is_a_method_without_argument() {
        for (call, bytes) in [
            (start(work()), "admin.vm.Start+ dom0 name work\0"),
            (kill(work()), "admin.vm.Kill+ dom0 name work\0"),
            (pause(work()), "admin.vm.Pause+ dom0 name work\0"),
            (unpause(work()), "admin.vm.Unpause+ dom0 name work\0"),
            (suspend(work()), "admin.vm.Suspend+ dom0 name work\0"),
            (resume(work()), "admin.vm.Resume+ dom0 name work\0"),
        ] {
            assert_eq!(sent(&call), bytes);
            assert!(call.answer(b"0\0").is_ok());
        }
    }

    #[test]
    fn shutdown_says_how_in_its_argument() {
        for (wait, force, argument) in [
            (false, false, ""),
            (true, false, "wait"),
            (false, true, "force"),
            (true, true, "force+wait"),
        ] {
            let call = shutdown(work(), Shutdown { wait, force });
            assert_eq!(sent(&call), format!("admin.vm.Shutdown+{argument} dom0 name work\0"));
        }
    }
}
