//! Moves bytes from one descriptor to another until one of them ends.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, read, write},
};

/// What one read takes. With pipes of this size a gigabyte passes in about 2,000 turns each way.
pub(super) const BLOCK_BYTES: usize = 512 * 1024;

/// How bytes change on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Not at all.
    None,
    /// What a terminal could act on becomes `_`, as with `-t` and `-T`.
    Terminal,
}

/// Moves bytes until the source ends or the sink is gone.
pub(super) fn pump(source: impl AsFd, sink: impl AsFd, filter: Filter) {
    let mut buffer = vec![0; BLOCK_BYTES];
    while let Some(count) = read_some(source.as_fd(), &mut buffer) {
        let Some(block) = buffer.get_mut(..count) else { return };
        match filter {
            Filter::None => {}
            Filter::Terminal => block.iter_mut().for_each(replace),
        }
        if !write_all(sink.as_fd(), block) {
            return;
        }
    }
}

/// What libqrexec lets through: printable ASCII and the harmless control characters.
fn replace(byte: &mut u8) {
    if !matches!(*byte, b' '..=b'~' | b'\n' | b'\r' | b'\t' | 7 | 8) {
        *byte = b'_';
    }
}

/// At least one byte, or `None` at the end.
fn read_some(source: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match read(source, &mut *buffer) {
            Ok(0) => return None,
            Ok(count) => return Some(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(source, PollFlags::IN),
            Err(_) => return None,
        }
    }
}

/// False when the sink is gone.
fn write_all(sink: BorrowedFd<'_>, mut block: &[u8]) -> bool {
    while !block.is_empty() {
        match write(sink, block) {
            Ok(count) => block = block.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(sink, PollFlags::OUT),
            Err(_) => return false,
        }
    }
    true
}

/// Waits for a descriptor, also one that its owner made non-blocking.
pub(super) fn wait(descriptor: BorrowedFd<'_>, event: PollFlags) {
    // An error shows again in the next read or write.
    let _ = poll(&mut [PollFd::new(&descriptor, event)], None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_terminal_filter_leaves_only_harmless_bytes() {
        let (source, mut feed) = std::io::pipe().unwrap();
        let (mut result, sink) = std::io::pipe().unwrap();
        feed.write_all(b"a\x1b[31mb\xc3\n").unwrap();
        drop(feed);
        pump(source, sink, Filter::Terminal);
        let mut text = Vec::new();
        result.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"a_[31mb_\n");
    }
}
