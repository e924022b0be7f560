//! What the small programs, the host and the inits say to one another: JSON beside descriptors.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

/// The longest message, in bytes. A command line of 65,535 bytes fits in, escaped.
pub(crate) const MESSAGE_BYTES: usize = 512 * 1024;
/// The most descriptors that one message carries.
const DESCRIPTORS: usize = 4;

/// A call, as a program in `DIR/bin` hands it to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    /// `qrexec-client-vm` in a qube.
    FromQube {
        /// The calling qube.
        source: String,
        /// The target as the caller wrote it.
        target: String,
        /// `SERVICE` or `SERVICE+ARG` as the caller wrote it.
        service: String,
    },
    /// `qrexec-client` in dom0.
    FromDom0 {
        /// The qube's name, or `uuid:` and its UUID.
        target: String,
        /// `USER:COMMAND`.
        command: String,
    },
}

/// What the host answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// There is nothing to connect to: end with this code, after saying this on standard error.
    Exit {
        /// The exit code.
        code: u8,
        /// What goes to standard error, with its newline.
        stderr: String,
    },
    /// Four pipes follow: the command's stdin, stdout and stderr, and one that tells its end.
    Pipes,
    /// One connected socket follows. Its end is success.
    Socket,
}

/// What the host wants of the init of a qube.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run a command on the four pipes that follow: stdin, stdout, stderr, and its end.
    Run(Command),
    /// Stop every process until [`Order::Unpause`].
    Pause,
    /// Let every process go on.
    Unpause,
    /// End every process, and then itself.
    Shutdown,
}

/// A command to run in a qube.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    /// Whom it runs as.
    pub(crate) user: User,
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Variables beside those of a login.
    pub(crate) environment: Vec<(String, String)>,
}

/// The two users of a qube.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum User {
    /// `root`.
    Root,
    /// `user`, the default one.
    User,
}

/// Sends one message on a blocking socket.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Takes one message from a socket that keeps messages apart. `None` is the end.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    buffer.resize(MESSAGE_BYTES, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let bytes = buffer.get(..received.bytes).unwrap_or_default();
    Ok(Some((serde_json::from_slice(bytes)?, descriptors)))
}

/// A socket that keeps messages apart, for [`next`]. Its type tells the runtime only that it is a
/// socket; nothing reads or writes it as a stream.
pub(crate) fn registered(socket: OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Waits for a message. `None` is the end.
pub(crate) async fn next<T: DeserializeOwned>(
    socket: &UnixStream,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    loop {
        socket.readable().await?;
        match socket.try_io(Interest::READABLE, || receive(socket, buffer)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_message_carries_descriptors_and_its_end_is_told() {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let (mut read, write) = io::pipe().unwrap();
        send(&near, &Answer::Socket, &[write.as_fd()]).unwrap();
        drop((near, write));
        let mut buffer = Vec::new();
        let (answer, mut descriptors) =
            receive::<Answer>(&far, &mut buffer).unwrap().expect("a message");
        assert_eq!(answer, Answer::Socket);
        let mut file = std::fs::File::from(descriptors.pop().unwrap());
        file.write_all(b"through").unwrap();
        drop(file);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert!(receive::<Answer>(&far, &mut buffer).unwrap().is_none());
    }
}
