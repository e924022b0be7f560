//! Ends the jobs of grants that have ended, where the daemon may not be running to do it.

use super::{OperatorError, Place, qubesd};
use crate::journal;

/// Stops the jobs whose grants have ended; a line for each that was stopped.
pub(crate) fn stop_ended(place: &Place) -> Result<Vec<String>, OperatorError> {
    if place.leaves_jobs {
        return Ok(Vec::new());
    }
    let host = place.host();
    host.ledger.prove_readable().map_err(OperatorError::Ledger)?;
    if !host.has_open_jobs() {
        return Ok(Vec::new());
    }
    let (mut stopped, mut failed) = (Vec::new(), Vec::new());
    for job in qubesd::wait_for(host.stop_ended_jobs())? {
        match job {
            Ok(what) => stopped.push(what),
            Err(what) => failed.push(what),
        }
    }
    for what in failed {
        journal::say(&format!("cannot be stopped, and is tried again by the daemon: {what}"));
    }
    Ok(stopped)
}
