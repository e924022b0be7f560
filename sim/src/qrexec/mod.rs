//! qrexec on the side of the host: takes calls, decides, and connects.

mod answer;
mod dom0_service;
mod from_qube;
mod into_qube;

use std::{io, path::Path, sync::Arc};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use tokio::net::{UnixListener, UnixStream};

use answer::Connection;
pub(crate) use from_qube::permits;

use crate::{
    host::Shared,
    wire::{self, Call},
};

/// How many programs may wait until the host has time for them.
const BACKLOG: i32 = 512;

/// Listens, and answers until the runtime ends.
pub(crate) fn serve(shared: &Arc<Shared>, path: &Path) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    let listener = UnixListener::from_std(socket.into())?;
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            if let Ok((program, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // A program that goes away in between needs no answer.
                tokio::spawn(async move { drop(serve_one(&shared, &program).await) });
            }
        }
    });
    Ok(())
}

async fn serve_one(shared: &Arc<Shared>, program: &UnixStream) -> io::Result<()> {
    let Some((call, _)) = wire::next::<Call>(program, &mut Vec::new()).await? else {
        return Ok(());
    };
    let connection = match call {
        Call::FromDom0 { target, command } => into_qube::from_dom0(shared, &target, &command).await,
        Call::FromQube { source, target, service } => {
            from_qube::from_qube(shared, &source, &target, &service).await
        }
    };
    connection.send(program)
}
