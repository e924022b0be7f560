//! Notices that a caller is gone.

use std::{io, os::fd::AsFd};

use tokio::{
    io::{BufReader, Interest},
    net::{UnixStream, unix::OwnedReadHalf},
};

use crate::{answer::Form, journal};

/// Resolves when the caller is gone: with the end of a framed caller's input, or when nobody
/// would read a plain caller's answer any more.
pub(crate) async fn hang_up(reader: &mut BufReader<OwnedReadHalf>, form: Form) {
    match form {
        Form::Framed => {
            drop(tokio::io::copy(reader, &mut tokio::io::sink()).await);
        }
        Form::Plain | Form::Json => {
            if let Err(error) = write_closed(reader.get_ref()).await {
                journal::say(&format!("cannot watch a caller: {error}"));
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A second registration of the same socket, because its readiness is cleared here on purpose.
async fn write_closed(read: &OwnedReadHalf) -> io::Result<()> {
    let duplicate = read.as_ref().as_fd().try_clone_to_owned()?;
    let socket = UnixStream::from_std(duplicate.into())?;
    while !socket.ready(Interest::WRITABLE).await?.is_write_closed() {
        // Forgets "writable", so that only the next change wakes this.
        drop(socket.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into())));
    }
    Ok(())
}
