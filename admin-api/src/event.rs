//! Events as bytes: `1\0SUBJECT\0NAME\0(KEY\0VALUE\0)*\0`, one after the other, without lengths.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{Destination, Exception, Request, ResponseError};

/// How many bytes one event may have. qubesd's own are below 1 KiB.
pub const EVENT_BYTES: usize = 1 << 20;

/// The event with which qubesd says that it listens from now on.
pub const CONNECTION_ESTABLISHED: &str = "connection-established";

/// The request that is answered by events: those of a qube, or of all when aimed at dom0.
pub fn listen(destination: Destination) -> Request {
    Request::new("admin.Events", destination)
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The name of the qube it happened to; empty for the system as a whole.
    pub subject: String,
    /// What happened, such as `domain-shutdown` or `property-set:netvm`.
    pub name: String,
    /// Keys and values as they came. Values are texts, `None` among them.
    pub details: Vec<(String, String)>,
}

impl Event {
    /// An event without details.
    pub fn new(subject: impl Into<String>, name: impl Into<String>) -> Self {
        Self { subject: subject.into(), name: name.into(), details: Vec::new() }
    }

    /// The same event with one more detail.
    #[must_use]
    pub fn detail(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.details.push((key.into(), value.into()));
        self
    }

    /// The value of the first detail with this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.details.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// The bytes of this event. Its texts are free of NUL, as all that qubesd names is.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::from(&b"1\0"[..]);
        let details = self.details.iter().flat_map(|(key, value)| [key, value]);
        for text in [&self.subject, &self.name].into_iter().chain(details) {
            bytes.put_slice(text.as_bytes());
            bytes.put_u8(0);
        }
        bytes.put_u8(0);
        bytes.freeze()
    }
}

/// What a stream of events carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventItem {
    /// An event; more may follow.
    Event(Event),
    /// The end, with a reason.
    Exception(Exception),
}

/// Bytes that are no stream of events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// An event or an exception begins with unknown bytes.
    #[error("an event begins with unknown bytes")]
    Status,
    /// Longer than [`EVENT_BYTES`].
    #[error("an event is longer than {EVENT_BYTES} bytes")]
    TooLong,
    /// The stream ended within an event.
    #[error("the stream of events ended within an event")]
    Truncated,
    /// The exception cannot be read.
    #[error(transparent)]
    Exception(#[from] ResponseError),
}

/// Takes a stream in pieces of any size and gives its events. After an error it gives nothing.
#[derive(Debug, Default)]
pub struct EventDecoder {
    buffer: BytesMut,
    // How many bytes of the buffer are known to hold no whole item.
    seen: usize,
    scan: Scan,
}

/// How far an event is known that has not arrived as a whole, so that no byte is looked at twice
/// however small the pieces are in which it comes.
#[derive(Debug, Default)]
struct Scan {
    /// Where the field under way begins.
    field: usize,
    /// Up to where no NUL is left to be found.
    looked: usize,
    /// How many fields are whole.
    fields: usize,
}

impl Scan {
    /// Where the event ends: behind an empty key, which stands where a detail would begin.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            let Some(nul) = bytes.get(self.looked..)?.iter().position(|byte| *byte == 0) else {
                self.looked = bytes.len();
                return None;
            };
            let end = self.looked + nul;
            let is_last = self.fields >= 2 && self.fields.is_multiple_of(2) && end == self.field;
            *self = Self { field: end + 1, looked: end + 1, fields: self.fields + 1 };
            if is_last {
                return Some(end + 1);
            }
        }
    }
}

impl EventDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole item, or `None` when more bytes must come first.
    pub fn pop(&mut self) -> Result<Option<EventItem>, EventError> {
        if self.buffer.len() == self.seen {
            return Ok(None);
        }
        match item(&self.buffer, &mut self.scan) {
            Ok(Some((item, length))) => {
                self.buffer.advance(length);
                self.seen = 0;
                self.scan = Scan::default();
                Ok(Some(item))
            }
            Ok(None) if self.buffer.len() > EVENT_BYTES => self.fail(EventError::TooLong),
            Ok(None) => {
                self.seen = self.buffer.len();
                Ok(None)
            }
            Err(error) => self.fail(error),
        }
    }

    /// To be asked when the stream has ended and [`pop`](Self::pop) gives nothing more.
    pub fn finish(&self) -> Result<(), EventError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(EventError::Truncated) }
    }

    fn fail<T>(&mut self, error: EventError) -> Result<T, EventError> {
        self.buffer.clear();
        self.seen = 0;
        self.scan = Scan::default();
        Err(error)
    }
}

/// The first item and its length in bytes.
fn item(bytes: &[u8], scan: &mut Scan) -> Result<Option<(EventItem, usize)>, EventError> {
    match bytes {
        [b'2', 0, ..] => exception(bytes),
        // Releases that send the status before they build the event can fail in between.
        [b'1', 0, rest @ ..] if rest.starts_with(b"2\0") => {
            Ok(exception(rest)?.map(|(item, length)| (item, length + 2)))
        }
        [b'1', 0, rest @ ..] => match scan.end(rest).and_then(|_| event(rest)) {
            Some((item, length)) => Ok(Some((item, length + 2))),
            None => Ok(None),
        },
        [b'1' | b'2'] | [] => Ok(None),
        _ => Err(EventError::Status),
    }
}

fn exception(bytes: &[u8]) -> Result<Option<(EventItem, usize)>, EventError> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(index, _)| index);
    // The status, the kind, the traceback, the message.
    let Some(end) = ends.into_iter().nth(3) else { return Ok(None) };
    let fields = bytes.get(2..=end).unwrap_or_default();
    Ok(Some((EventItem::Exception(Exception::decode(fields)?), end + 1)))
}

fn event(bytes: &[u8]) -> Option<(EventItem, usize)> {
    let mut length = 0;
    let mut next = || {
        let rest = bytes.get(length..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        length += end + 1;
        rest.get(..end).map(|text| String::from_utf8_lossy(text).into_owned())
    };
    let mut event = Event::new(next()?, next()?);
    loop {
        let key = next()?;
        if key.is_empty() {
            return Some((EventItem::Event(event), length));
        }
        event.details.push((key, next()?));
    }
}

/// Decodes whatever it is given, whole and byte by byte, and asserts that both agree.
pub fn fuzz_events(input: &[u8]) {
    let drain = |decoder: &mut EventDecoder, items: &mut Vec<Result<EventItem, EventError>>| {
        while items.iter().all(Result::is_ok) {
            match decoder.pop() {
                Ok(Some(item)) => items.push(Ok(item)),
                Ok(None) => return,
                Err(error) => items.push(Err(error)),
            }
        }
    };
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let (mut first, mut second) = (EventDecoder::new(), EventDecoder::new());
    first.push(input);
    drain(&mut first, &mut whole);
    for byte in input {
        second.push(&[*byte]);
        drain(&mut second, &mut pieces);
    }
    assert!(whole == pieces, "events depend on how they arrive");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn items(bytes: &[u8]) -> Vec<EventItem> {
        let mut decoder = EventDecoder::new();
        decoder.push(bytes);
        let items = std::iter::from_fn(|| decoder.pop().unwrap()).collect();
        assert_eq!(decoder.finish(), Ok(()));
        items
    }

    #[test]
    fn events_follow_each_other_without_lengths() {
        let bytes = b"1\0\0connection-established\0\x001\0test\0domain-pre-start\0start_guid\0True\0mem_required\0None\0\0";
        let events = [
            Event::new("", CONNECTION_ESTABLISHED),
            Event::new("test", "domain-pre-start")
                .detail("start_guid", "True")
                .detail("mem_required", "None"),
        ];
        assert_eq!(items(bytes), events.clone().map(EventItem::Event));
        assert_eq!(
            events.iter().flat_map(|event| event.encode().to_vec()).collect::<Vec<_>>(),
            bytes
        );
        assert_eq!(events[1].get("mem_required"), Some("None"));
        assert_eq!(events[1].get("vm"), None);
    }

    #[test]
    fn an_empty_value_does_not_end_an_event() {
        let event =
            Event::new("work", "property-set:netvm").detail("newvalue", "").detail("name", "netvm");
        assert_eq!(items(&event.encode()), [EventItem::Event(event)]);
    }

    #[test]
    fn a_stream_can_end_with_an_exception_at_once_after_events_or_after_a_bare_status() {
        let exception =
            EventItem::Exception(Exception::new("QubesVMNotFoundError", "No such domain: 'x'"));
        let bytes = b"2\0QubesVMNotFoundError\0\0No such domain: 'x'\0";
        assert_eq!(items(bytes), std::slice::from_ref(&exception));
        assert_eq!(items(&[b"1\0", &bytes[..]].concat()), std::slice::from_ref(&exception));
        let event = Event::new("", CONNECTION_ESTABLISHED);
        assert_eq!(
            items(&[&event.encode()[..], bytes].concat()),
            [EventItem::Event(event), exception]
        );
    }

    #[test]
    fn what_is_no_event_is_an_error_and_so_is_half_of_one() {
        let mut decoder = EventDecoder::new();
        decoder.push(b"0\0content");
        assert_eq!(decoder.pop(), Err(EventError::Status));
        decoder.push(b"1\0work\0domain-st");
        assert_eq!(decoder.pop(), Ok(None));
        assert_eq!(decoder.finish(), Err(EventError::Truncated));
        decoder.push(&vec![b'x'; EVENT_BYTES]);
        assert_eq!(decoder.pop(), Err(EventError::TooLong));
        assert_eq!(decoder.pop(), Ok(None));
    }

    #[test]
    fn an_event_in_single_bytes_costs_no_more_than_its_bytes() {
        let details = (0..EVENT_BYTES / 4).map(|_| ("k".to_owned(), String::new())).collect();
        let event = Event { details, ..Event::new("work", "feature-set") };
        let (mut decoder, mut seen) = (EventDecoder::new(), Vec::new());
        for byte in event.encode() {
            decoder.push(&[byte]);
            seen.extend(decoder.pop().unwrap());
        }
        assert_eq!(seen, [EventItem::Event(event)]);
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let details = prop::collection::vec(("[a-z]{1,5}", "[ -~]{0,5}"), 0..4);
        prop::collection::vec(("[a-z]{0,5}", "[a-z:-]{0,9}", details), 0..6).prop_map(|events| {
            events
                .into_iter()
                .map(|(subject, name, details)| Event { subject, name, details })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn events_survive_any_split(events in events(), cuts in prop::collection::vec(1..20usize, 1..60)) {
            let wire: Vec<u8> = events.iter().flat_map(|event| event.encode().to_vec()).collect();
            let (mut decoder, mut rest, mut seen) = (EventDecoder::new(), &wire[..], Vec::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                decoder.push(piece);
                rest = later;
                while let Some(item) = decoder.pop().unwrap() { seen.push(item); }
            }
            prop_assert_eq!(seen, events.into_iter().map(EventItem::Event).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(
            input in prop::collection::vec(prop::sample::select(vec![b'0', b'1', b'2', 0, 0, 0, b'a', 0xff]), 0..80),
        ) {
            fuzz_events(&input);
        }
    }
}
