//! Questions that a command asks qubesd, one after the other.

use std::io;

use super::OperatorError;

/// Waits for an answer.
pub(crate) fn wait_for<T>(answer: impl Future<Output = T>) -> Result<T, OperatorError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error: io::Error| OperatorError::Runtime(error))?.block_on(answer))
}
