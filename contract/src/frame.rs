//! The frames of an answer: kind (u8), length (u32, big-endian), payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::limits::FRAME_BYTES;

/// The bytes before each payload.
pub const HEADER_BYTES: usize = 5;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of the service's main stream.
    Stdout,
    /// Bytes of its second stream.
    Stderr,
    /// A JSON object that says how far the work is.
    Progress,
    /// A piece of a JSON result too long for one frame; more follows.
    Part,
    /// The JSON result, or its last piece. Nothing follows.
    Result,
    /// A JSON [`Fault`](crate::Fault). Nothing follows.
    Fault,
}

impl Kind {
    /// Every kind, in the order of their bytes.
    pub const ALL: [Self; 6] =
        [Self::Stdout, Self::Stderr, Self::Progress, Self::Part, Self::Result, Self::Fault];

    const fn byte(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Progress => 3,
            Self::Part => 4,
            Self::Result => 5,
            Self::Fault => 6,
        }
    }

    /// True for the two kinds that end an answer.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Result | Self::Fault => true,
            Self::Stdout | Self::Stderr | Self::Progress | Self::Part => false,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: Kind,
    /// At most [`FRAME_BYTES`].
    pub payload: Bytes,
}

impl Frame {
    /// A frame of this kind.
    pub fn new(kind: Kind, payload: impl Into<Bytes>) -> Self {
        Self { kind, payload: payload.into() }
    }
}

/// Bytes that are no frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The first byte names no kind.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The length is above [`FRAME_BYTES`].
    #[error("frame of {0} bytes is longer than {FRAME_BYTES}")]
    TooLong(usize),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Turns bytes into frames and back. Reserves nothing for bytes that have not arrived.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some((header, _)) = source.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [byte, length @ ..] = *header;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.byte() == byte)
            .ok_or(FrameError::UnknownKind(byte))?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        if source.len() - HEADER_BYTES < length {
            return Ok(None);
        }
        source.advance(HEADER_BYTES);
        Ok(Some(Frame { kind, payload: source.split_to(length).freeze() }))
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(source)? {
            Some(frame) => Ok(Some(frame)),
            None if source.is_empty() => Ok(None),
            None => Err(FrameError::Truncated),
        }
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, target: &mut BytesMut) -> Result<(), FrameError> {
        let header = render_header(frame.kind, frame.payload.len())?;
        target.reserve(HEADER_BYTES + frame.payload.len());
        target.put_slice(&header);
        target.put_slice(&frame.payload);
        Ok(())
    }
}

/// The bytes before a payload of this length, for writers that do not want to copy the payload.
pub fn render_header(kind: Kind, length: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    let (Ok(wire), true) = (u32::try_from(length), length <= FRAME_BYTES) else {
        return Err(FrameError::TooLong(length));
    };
    let [a, b, c, d] = wire.to_be_bytes();
    Ok([kind.byte(), a, b, c, d])
}

/// Decodes whatever it is given and asserts that what was decoded encodes to the same bytes.
pub fn fuzz_frames(input: &[u8]) {
    let (mut source, mut again) = (BytesMut::from(input), BytesMut::new());
    while let Ok(Some(frame)) = FrameCodec.decode(&mut source) {
        assert!(FrameCodec.encode(frame, &mut again).is_ok(), "a decoded frame does not encode");
    }
    assert!(input.starts_with(&again), "frames do not survive a round trip");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_its_kind_its_length_and_its_payload() {
        let mut bytes = BytesMut::new();
        FrameCodec.encode(Frame::new(Kind::Stderr, &b"no"[..]), &mut bytes).unwrap();
        assert_eq!(&bytes[..], b"\x02\x00\x00\x00\x02no");
        assert_eq!(
            FrameCodec.decode(&mut bytes).unwrap(),
            Some(Frame::new(Kind::Stderr, &b"no"[..]))
        );
        assert!(bytes.is_empty());
        let finals: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_final()).collect();
        assert_eq!(finals, [Kind::Result, Kind::Fault]);
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_bytes_arrive() {
        let mut bytes = BytesMut::from(&b"\x01\x00\x01\x00\x01"[..]);
        assert!(matches!(FrameCodec.decode(&mut bytes), Err(FrameError::TooLong(65537))));
        assert!(bytes.capacity() < 1024);
        assert!(matches!(render_header(Kind::Part, 65537), Err(FrameError::TooLong(65537))));
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_is_an_error() {
        let mut bytes = BytesMut::from(&b"\x01\x00\x00\x00\x02n"[..]);
        assert!(matches!(FrameCodec.decode_eof(&mut bytes), Err(FrameError::Truncated)));
        let mut whole = BytesMut::from(&b"\x01\x00\x00\x00\x01n"[..]);
        assert!(matches!(FrameCodec.decode_eof(&mut whole), Ok(Some(_))));
        fuzz_frames(b"\x01\x00\x00\x00\x01n\x05\x00\x00\x00\x02{}\x07");
        assert!(matches!(
            FrameCodec.decode(&mut BytesMut::from(&b"\x07\0\0\0\0"[..])),
            Err(FrameError::UnknownKind(7))
        ));
    }

    proptest! {
        #[test]
        fn frames_survive_any_split_of_reads(
            frames in prop::collection::vec((0..6usize, prop::collection::vec(any::<u8>(), 0..200)), 0..8),
            cuts in prop::collection::vec(1..40usize, 1..200),
        ) {
            let frames: Vec<Frame> =
                frames.into_iter().map(|(kind, payload)| Frame::new(Kind::ALL[kind], payload)).collect();
            let mut wire = BytesMut::new();
            for frame in &frames { FrameCodec.encode(frame.clone(), &mut wire).unwrap(); }
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let piece = wire.split_to(cut.min(wire.len()));
                buffer.extend_from_slice(&piece);
                while let Some(frame) = FrameCodec.decode(&mut buffer).unwrap() { seen.push(frame); }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(input in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz_frames(&input);
        }
    }
}
