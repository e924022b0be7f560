//! Reads the bodies of requests, within a length, a time, and the memory that all share.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use contract::limits;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::gate::Turned;

/// The memory for bodies that are longer than a usual request.
#[derive(Debug)]
pub(super) struct Bodies {
    memory: Arc<Semaphore>,
}

/// Part of that memory, until it is dropped.
pub(super) type Memory = Option<OwnedSemaphorePermit>;

impl Bodies {
    /// All of it is free.
    pub(super) fn new() -> Self {
        Self { memory: Arc::new(Semaphore::new(limits::HTTP_BODIES_BYTES)) }
    }

    /// Reads a body whole.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        mut body: Incoming,
    ) -> Result<(Bytes, Memory), Turned> {
        let deadline = Instant::now() + limits::BODY;
        let told = match headers.get(CONTENT_LENGTH).map(|value| value.to_str()) {
            Some(Ok(text)) => text.parse().map_err(|_| Turned::TooLarge)?,
            Some(Err(_)) => return Err(Turned::Broken),
            // A chunked body: as long as it may be.
            None if body.is_end_stream() => 0,
            None => limits::HTTP_BODY_BYTES,
        };
        if told > limits::HTTP_BODY_BYTES && headers.contains_key(CONTENT_LENGTH) {
            return Err(Turned::TooLarge);
        }
        let memory = match u32::try_from(told) {
            Ok(told) if told > short() => {
                let permit = Arc::clone(&self.memory).acquire_many_owned(told);
                let permit = timeout_at(deadline, permit).await.map_err(|_| Turned::Full)?;
                Some(permit.map_err(|_| Turned::Full)?)
            }
            Ok(_) | Err(_) => None,
        };
        let mut bytes = BytesMut::new();
        loop {
            let idle = deadline.min(Instant::now() + limits::REQUEST);
            let frame = timeout_at(idle, body.frame()).await.map_err(|_| Turned::TimedOut)?;
            let Some(frame) = frame else { return Ok((bytes.freeze(), memory)) };
            let Ok(data) = frame.map_err(|_| Turned::Broken)?.into_data() else { continue };
            if data.len() > told.saturating_sub(bytes.len()) {
                return Err(Turned::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
    }
}

fn short() -> u32 {
    u32::try_from(limits::HTTP_SHORT_BODY_BYTES).unwrap_or(u32::MAX)
}
