//! One recorded exchange against our codecs and our typed calls.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::{env, fs};

use admin_api::call::device::{AssignmentMode, DeviceAddress};
use admin_api::call::feature::Fallback;
use admin_api::call::lifecycle::Shutdown;
use admin_api::call::{
    Call, create, device, feature, firewall, label, lifecycle, pool, property, tag, vm, volume,
};
use admin_api::firewall::{parse_rules, render_rules};
use admin_api::request::REQUEST_BYTES;
use admin_api::{
    Destination, DeviceClass, DeviceId, Error, Event, EventDecoder, EventItem, Exception,
    FeatureName, LabelName, OptionName, OptionValue, PoolName, PortId, PropertyName, QubeName,
    Request, Response, ResponseError, Revision, Source, Tag, VolumeName,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

/// A line of a recording; keys that are not needed here may be there as well.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Line {
    pub(crate) label: Option<String>,
    method: Option<String>,
    arg: Option<String>,
    src: Option<String>,
    dest: Option<String>,
    pub(crate) request_b64: Option<String>,
    shutdown_write: Option<bool>,
    reply_b64: Option<String>,
    kind: Option<String>,
    exc_type: Option<String>,
    message: Option<String>,
    pub(crate) stream_b64: Option<String>,
    #[serde(default)]
    parsed_events: Vec<RecordedEvent>,
    pub(crate) firewall_xml: Option<String>,
    pub(crate) get_content: Option<String>,
    pub(crate) set_payload: Option<String>,
    pub(crate) set_ok: Option<bool>,
}

#[derive(Debug, serde::Deserialize)]
struct RecordedEvent {
    subject: String,
    event: String,
    args: Vec<(String, String)>,
}

/// Why a line is not replayed in full. Each reason is told by the recorded bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Skipped {
    /// No exchange with qubesd: the description of a file, a firewall.xml, a call through qrexec.
    NoExchange,
    /// The client never shut down its write side, so that no answer came.
    NotShut,
    /// More bytes than qubesd takes.
    TooLong,
    /// No NUL, or fewer than four words before it.
    Truncated,
    /// More than four words: a space within the argument or after the destination.
    Space,
    /// The destination is given as a keyword.
    Keyword,
    /// No `+` after the method.
    NoPlus,
    /// No method.
    NoMethod,
    /// A destination that is no name.
    Destination,
    /// Expressed as a request, but its method has no typed call.
    NoTypedCall,
    /// Expressed as a request that qubesd refused, and that no typed call sends.
    NeverSent,
    /// Expressed as a request; the typed call spells it in another way that means the same.
    Respelled,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Request and answer went through a typed call.
    Typed,
    /// A stream of events went through the decoder.
    Stream,
    /// See there. The codecs were tried as far as the bytes allow.
    Skipped(Skipped),
}

/// How many lines there were of each kind.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) typed: usize,
    streams: usize,
    skipped: BTreeMap<(String, Skipped), usize>,
}

impl Tally {
    pub(crate) fn count(&mut self, file: &str, verdict: Verdict) {
        match verdict {
            Verdict::Typed => self.typed += 1,
            Verdict::Stream => self.streams += 1,
            Verdict::Skipped(why) => *self.skipped.entry((file.to_owned(), why)).or_default() += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "typed calls: {}", self.typed)?;
        writeln!(out, "streams of events: {}", self.streams)?;
        for ((file, why), count) in &self.skipped {
            writeln!(out, "{file}: {why:?}: {count}")?;
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the variable that points this test at other recordings"
)]
fn other_folder() -> Option<PathBuf> {
    env::var_os("TRANSCRIPTS").map(PathBuf::from)
}

pub(crate) fn is_default() -> bool {
    other_folder().is_none()
}

pub(crate) fn folder() -> PathBuf {
    other_folder()
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts"))
}

/// Every line of every file, with the name of its file.
pub(crate) fn recordings() -> Vec<(String, Line)> {
    let paths = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap();
        let line = |line: &str| (file.clone(), serde_json::from_str(line).unwrap());
        text.lines().map(line).collect::<Vec<_>>()
    };
    paths.into_iter().flat_map(read).collect()
}

fn bytes_of(field: Option<&String>) -> Vec<u8> {
    BASE64_STANDARD.decode(field.unwrap()).unwrap()
}

/// Of the longest requests only the beginning was recorded: `BASE64...(LENGTH bytes)`.
fn abridged_length(field: &str) -> Option<usize> {
    field.split_once("...(")?.1.strip_suffix(" bytes)")?.parse().ok()
}

/// Why these bytes are no request of ours, told without our codec.
fn inexpressible(bytes: &[u8]) -> Option<Skipped> {
    if bytes.len() > REQUEST_BYTES {
        return Some(Skipped::TooLong);
    }
    let Some(end) = bytes.iter().position(|byte| *byte == 0) else {
        return Some(Skipped::Truncated);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let words: Vec<&str> = head.split(' ').collect();
    let [method, _source, kind, destination] = words[..] else {
        return Some(if words.len() < 4 { Skipped::Truncated } else { Skipped::Space });
    };
    match (method.split_once('+'), kind) {
        (None, _) => Some(Skipped::NoPlus),
        (Some(("", _)), _) => Some(Skipped::NoMethod),
        (Some(_), "name") => {
            Destination::parse(destination).is_err().then_some(Skipped::Destination)
        }
        (Some(_), _) => Some(Skipped::Keyword),
    }
}

/// The request as recorded: from its recorded parts where they are, else from its bytes.
fn request_of(line: &Line, bytes: &[u8]) -> Request {
    let decoded = Request::decode(bytes).unwrap();
    let (Some(method), Some(argument), Some(source), Some(destination)) =
        (&line.method, &line.arg, &line.src, &line.dest)
    else {
        return decoded;
    };
    let payload = bytes.splitn(2, |byte| *byte == 0).nth(1).unwrap();
    let built = Request::new(method.clone(), Destination::parse(destination).unwrap())
        .argument(argument)
        .source(Source::parse(source).unwrap())
        .payload(payload.to_vec());
    assert_eq!(built, decoded, "{line:?}");
    built
}

pub(crate) fn exchange(line: &Line) -> Verdict {
    let reply = bytes_of(line.reply_b64.as_ref());
    if let Some(length) = line.request_b64.as_deref().and_then(abridged_length) {
        assert!(length > REQUEST_BYTES && reply.is_empty(), "{line:?}");
        return Verdict::Skipped(Skipped::TooLong);
    }
    let request = bytes_of(line.request_b64.as_ref());
    if line.shutdown_write == Some(false) {
        assert!(reply.is_empty(), "{line:?}");
        return Verdict::Skipped(Skipped::NotShut);
    }
    same_response(line, &reply);
    if let Some(why) = inexpressible(&request) {
        let same = Request::decode(&request).and_then(|read| read.encode());
        assert!(same.is_err() || same.unwrap() != request, "it can be expressed: {line:?}");
        return Verdict::Skipped(why);
    }
    let recorded = request_of(line, &request);
    assert_eq!(recorded.encode().unwrap(), request, "{line:?}");
    same_firewall_rules(&recorded, line);
    let replayed = typed(&recorded, &reply);
    let is_typed = replayed.as_ref().is_some_and(|replayed| replayed.sent == request);
    if line.kind.as_deref() == Some("event") || !has_typed_call(&recorded) {
        return Verdict::Skipped(Skipped::NoTypedCall);
    }
    if line.kind.as_deref() == Some("ok") || is_typed {
        assert!(is_typed || is_respelled(&recorded), "accepted, but never sent: {line:?}");
        same_answer(line, replayed.unwrap().answer);
    }
    match (is_typed, line.kind.as_deref()) {
        (true, _) => Verdict::Typed,
        (false, Some("ok")) => Verdict::Skipped(Skipped::Respelled),
        (false, _) => Verdict::Skipped(Skipped::NeverSent),
    }
}

/// Whether any argument and payload make a typed call of this method.
fn has_typed_call(recorded: &Request) -> bool {
    let probes = [
        ("", ""),
        ("a", "1"),
        ("a+b", "mode='required'"),
        ("a+b", "required"),
        ("", "name=a label=b"),
    ];
    probes.into_iter().any(|(argument, payload)| {
        typed(&recorded.clone().argument(argument).payload(payload), b"0\0").is_some()
    })
}

/// qubesd hangs up on exactly those rules that we cannot read.
fn same_firewall_rules(recorded: &Request, line: &Line) {
    let kind = line.kind.as_deref();
    if recorded.method != "admin.vm.firewall.Set" || kind == Some("exception") {
        return;
    }
    let rules =
        String::from_utf8(recorded.payload.to_vec()).map(|payload| parse_rules(&payload).is_ok());
    assert_eq!(rules == Ok(true), kind == Some("ok"), "{line:?}");
}

/// Calls that qubesd accepts in forms that we do not send.
fn is_respelled(recorded: &Request) -> bool {
    let payload = String::from_utf8_lossy(&recorded.payload);
    match &*recorded.method {
        // Rules are sent in their canonical form, which means the same.
        "admin.vm.firewall.Set" => {
            parse_rules(&payload).is_ok_and(|rules| render_rules(&rules) != payload)
        }
        // What names the device once more is left out.
        "admin.vm.device.block.Attach" => payload.starts_with("device_id="),
        _ => false,
    }
}

fn same_response(line: &Line, reply: &[u8]) {
    let response = Response::decode(reply);
    match (line.kind.as_deref().unwrap(), &response) {
        ("ok", Ok(Response::Ok(content))) => assert_eq!(content, &reply[2..]),
        ("exception", Ok(Response::Exception(exception))) => {
            assert_eq!(exception, &exception_of(line));
        }
        ("empty", Err(ResponseError::Empty)) => return,
        ("event", Err(ResponseError::Event)) => return events_in(reply),
        (kind, response) => panic!("{kind} was recorded, but {response:?} read: {line:?}"),
    }
    assert_eq!(response.unwrap().encode(), reply, "{line:?}");
}

fn exception_of(line: &Line) -> Exception {
    Exception::new(line.exc_type.clone().unwrap(), line.message.clone().unwrap())
}

fn same_answer(line: &Line, answer: Result<Value, Error>) {
    match (line.kind.as_deref().unwrap(), answer) {
        ("ok", Ok(value)) => {
            if let Some(again) = value.again {
                assert_eq!(again.as_bytes(), &bytes_of(line.reply_b64.as_ref())[2..], "{line:?}");
            }
        }
        ("exception", Err(Error::Exception(exception))) => {
            assert_eq!(exception, exception_of(line));
        }
        ("empty", Err(Error::Empty)) => {}
        (kind, answer) => panic!("{kind} was recorded, but {answer:?} read: {line:?}"),
    }
}

/// A stream that was cut by the client: whole events, then perhaps a part of one.
fn events_in(reply: &[u8]) {
    let mut decoder = EventDecoder::new();
    decoder.push(reply);
    let mut again = Vec::new();
    while let Some(item) = decoder.pop().unwrap() {
        let EventItem::Event(event) = item else { panic!("{item:?}") };
        again.extend_from_slice(&event.encode());
    }
    assert!(!again.is_empty() && reply.starts_with(&again));
}

pub(crate) fn stream(line: &Line) -> Verdict {
    let (request, stream) =
        (bytes_of(line.request_b64.as_ref()), bytes_of(line.stream_b64.as_ref()));
    if line.shutdown_write == Some(false) {
        assert!(stream.is_empty(), "{line:?}");
        return Verdict::Skipped(Skipped::NotShut);
    }
    let recorded = Request::decode(&request).unwrap();
    assert_eq!(recorded.encode().unwrap(), request);
    if recorded.argument.is_empty() && recorded.payload.is_empty() {
        assert_eq!(admin_api::event::listen(recorded.destination).encode().unwrap(), request);
    }
    let event = |event: &RecordedEvent| Event {
        subject: event.subject.clone(),
        name: event.event.clone(),
        details: event.args.clone(),
    };
    let events: Vec<Event> = line.parsed_events.iter().map(event).collect();
    for size in [1, 2, 7, 64, stream.len().max(1)] {
        let mut decoder = EventDecoder::new();
        let (mut seen, mut again) = (Vec::new(), Vec::new());
        for piece in stream.chunks(size) {
            decoder.push(piece);
            while let Some(item) = decoder.pop().unwrap() {
                match item {
                    EventItem::Event(event) => {
                        again.extend_from_slice(&event.encode());
                        seen.push(event);
                    }
                    EventItem::Exception(exception) => {
                        again.extend_from_slice(&Response::Exception(exception).encode());
                    }
                }
            }
        }
        decoder.finish().unwrap();
        assert_eq!((&seen, &again), (&events, &stream), "{size}: {line:?}");
    }
    Verdict::Stream
}

/// What a typed call sent and how it understood the recorded reply.
struct Replayed {
    sent: Bytes,
    answer: Result<Value, Error>,
}

/// A typed value: its content once more, where there is a function that renders it.
#[derive(Debug)]
struct Value {
    again: Option<String>,
}

fn plain<T: Debug>(call: &Call<T>, recorded: &Request, reply: &[u8]) -> Option<Replayed> {
    rendered(call, recorded, reply, |_| None)
}

fn rendered<T: Debug>(
    call: &Call<T>,
    recorded: &Request,
    reply: &[u8],
    render: impl Fn(&T) -> Option<String>,
) -> Option<Replayed> {
    let call = call.clone().source(recorded.source.clone());
    let answer = call.answer(reply).map(|value| Value { again: render(&value) });
    Some(Replayed { sent: call.request.encode().unwrap(), answer })
}

fn one_a_line<T: ToString>(items: &[T]) -> Option<String> {
    Some(items.iter().map(|item| item.to_string() + "\n").collect())
}

/// The typed call that is nearest to a recorded request; none when the method has none, or when its
/// types refuse what was sent.
fn typed(recorded: &Request, reply: &[u8]) -> Option<Replayed> {
    let method = &*recorded.method;
    let of_a_qube = system(recorded, reply).or_else(|| of_a_qube(recorded, reply));
    of_a_qube.or_else(|| match method.rsplit_once('.')?.0 {
        "admin.vm.property" | "admin.property" => properties(recorded, reply),
        "admin.vm.volume" | "admin.vm.volume.Set" => volumes(recorded, reply),
        "admin.vm.Create" | "admin.vm.CreateInPool" => creation(recorded, reply),
        _ => devices(recorded, reply),
    })
}

fn system(recorded: &Request, reply: &[u8]) -> Option<Replayed> {
    let argument = recorded.argument.as_str();
    let (pool, label) = (PoolName::parse(argument), LabelName::parse(argument));
    match &*recorded.method {
        "admin.vmclass.List" => {
            rendered(&vm::classes(), recorded, reply, |items| one_a_line(items))
        }
        "admin.deviceclass.List" => {
            rendered(&device::classes(), recorded, reply, |items| one_a_line(items))
        }
        "admin.label.List" => rendered(&label::list(), recorded, reply, |items| one_a_line(items)),
        "admin.label.Get" => rendered(&label::get(&label.ok()?), recorded, reply, |colour| {
            Some(format!("0x{colour:06x}"))
        }),
        "admin.label.Index" => {
            rendered(&label::index(&label.ok()?), recorded, reply, |index| Some(index.to_string()))
        }
        "admin.pool.List" => rendered(&pool::list(), recorded, reply, |items| one_a_line(items)),
        "admin.pool.Info" => plain(&pool::info(&pool.ok()?), recorded, reply),
        "admin.pool.UsageDetails" => plain(&pool::usage(&pool.ok()?), recorded, reply),
        "admin.pool.volume.List" => {
            rendered(&pool::volumes(&pool.ok()?), recorded, reply, |items| one_a_line(items))
        }
        _ => None,
    }
}

fn of_a_qube(recorded: &Request, reply: &[u8]) -> Option<Replayed> {
    let (argument, to) = (recorded.argument.as_str(), || recorded.destination.clone());
    let payload = String::from_utf8(recorded.payload.to_vec()).ok()?;
    let tag = || Tag::parse(argument).ok();
    let name = || FeatureName::parse(argument).ok();
    match &*recorded.method {
        "admin.vm.List" => rendered(&vm::list(to()), recorded, reply, |qubes| {
            one_a_line(&qubes.iter().map(vm::ListedQube::render_line).collect::<Vec<_>>())
        }),
        "admin.vm.CurrentState" => {
            rendered(&vm::current_state(to()), recorded, reply, |state| Some(state.render()))
        }
        "admin.vm.Remove" => plain(&vm::remove(to()), recorded, reply),
        "admin.vm.notes.Get" => {
            rendered(&vm::notes(to()), recorded, reply, |notes| Some(notes.clone()))
        }
        "admin.vm.notes.Set" => plain(&vm::set_notes(to(), &payload), recorded, reply),
        "admin.vm.Start" => plain(&lifecycle::start(to()), recorded, reply),
        "admin.vm.Shutdown" => {
            let words: Vec<&str> = argument.split('+').collect();
            let how = Shutdown { wait: words.contains(&"wait"), force: words.contains(&"force") };
            plain(&lifecycle::shutdown(to(), how), recorded, reply)
        }
        "admin.vm.Kill" => plain(&lifecycle::kill(to()), recorded, reply),
        "admin.vm.Pause" => plain(&lifecycle::pause(to()), recorded, reply),
        "admin.vm.Unpause" => plain(&lifecycle::unpause(to()), recorded, reply),
        "admin.vm.Suspend" => plain(&lifecycle::suspend(to()), recorded, reply),
        "admin.vm.Resume" => plain(&lifecycle::resume(to()), recorded, reply),
        "admin.vm.tag.List" => {
            rendered(&tag::list(to()), recorded, reply, |items| one_a_line(items))
        }
        "admin.vm.tag.Get" => plain(&tag::get(to(), &tag()?), recorded, reply),
        "admin.vm.tag.Set" => plain(&tag::set(to(), &tag()?), recorded, reply),
        "admin.vm.tag.Remove" => plain(&tag::remove(to(), &tag()?), recorded, reply),
        "admin.vm.feature.List" => {
            rendered(&feature::list(to()), recorded, reply, |items| one_a_line(items))
        }
        "admin.vm.feature.Get" => plain(&feature::get(to(), &name()?), recorded, reply),
        "admin.vm.feature.Set" => plain(&feature::set(to(), &name()?, &payload), recorded, reply),
        "admin.vm.feature.Remove" => plain(&feature::remove(to(), &name()?), recorded, reply),
        "admin.vm.firewall.Get" => {
            rendered(&firewall::get(to()), recorded, reply, |rules| Some(render_rules(rules)))
        }
        "admin.vm.firewall.Set" => {
            plain(&firewall::set(to(), &parse_rules(&payload).ok()?), recorded, reply)
        }
        "admin.vm.firewall.Reload" => plain(&firewall::reload(to()), recorded, reply),
        "admin.vm.CreateDisposable" if payload == "uuid" => {
            plain(&create::disposable_by_uuid(to()), recorded, reply)
        }
        "admin.vm.CreateDisposable" => plain(&create::disposable(to()), recorded, reply),
        "admin.vm.device.denied.List" => plain(&device::denied(to()), recorded, reply),
        method => {
            let word = method.strip_prefix("admin.vm.feature.CheckWith")?;
            let words = ["Template", "Netvm", "AdminVM", "TemplateAndAdminVM"];
            let at = words.iter().position(|known| *known == word)?;
            plain(&feature::get_with(to(), &name()?, Fallback::ALL[at]), recorded, reply)
        }
    }
}

fn properties(recorded: &Request, reply: &[u8]) -> Option<Replayed> {
    let to = || recorded.destination.clone();
    let name = || PropertyName::parse(&recorded.argument).ok();
    let payload = String::from_utf8(recorded.payload.to_vec()).ok()?;
    let all = |all: &Vec<(PropertyName, property::Property)>| {
        one_a_line(
            &all.iter().map(|(name, found)| property::render_line(name, found)).collect::<Vec<_>>(),
        )
    };
    let one = |found: &property::Property| Some(found.to_string());
    match &*recorded.method {
        "admin.vm.property.List" => {
            rendered(&property::list(to()), recorded, reply, |items| one_a_line(items))
        }
        "admin.vm.property.Get" => rendered(&property::get(to(), &name()?), recorded, reply, one),
        "admin.vm.property.GetAll" => rendered(&property::get_all(to()), recorded, reply, all),
        "admin.vm.property.GetDefault" => {
            plain(&property::get_default(to(), &name()?), recorded, reply)
        }
        "admin.vm.property.Help" => plain(&property::help(to(), &name()?), recorded, reply),
        "admin.vm.property.Set" => plain(&property::set(to(), &name()?, &payload), recorded, reply),
        "admin.vm.property.Reset" => plain(&property::reset(to(), &name()?), recorded, reply),
        "admin.property.List" => {
            rendered(&property::global_list(), recorded, reply, |items| one_a_line(items))
        }
        "admin.property.Get" => rendered(&property::global_get(&name()?), recorded, reply, one),
        "admin.property.GetAll" => rendered(&property::global_get_all(), recorded, reply, all),
        "admin.property.GetDefault" => {
            plain(&property::global_get_default(&name()?), recorded, reply)
        }
        "admin.property.Help" => plain(&property::global_help(&name()?), recorded, reply),
        "admin.property.Set" => plain(&property::global_set(&name()?, &payload), recorded, reply),
        "admin.property.Reset" => plain(&property::global_reset(&name()?), recorded, reply),
        _ => None,
    }
}

fn volumes(recorded: &Request, reply: &[u8]) -> Option<Replayed> {
    let to = || recorded.destination.clone();
    let payload = String::from_utf8(recorded.payload.to_vec()).ok()?;
    if recorded.method == "admin.vm.volume.List" {
        return rendered(&volume::list(to()), recorded, reply, |items| one_a_line(items));
    }
    let name = VolumeName::parse(&recorded.argument).ok()?;
    let flag = payload == "True";
    match &*recorded.method {
        "admin.vm.volume.Info" => plain(&volume::info(to(), &name), recorded, reply),
        "admin.vm.volume.ListSnapshots" => {
            rendered(&volume::snapshots(to(), &name), recorded, reply, |items| one_a_line(items))
        }
        "admin.vm.volume.Resize" => {
            plain(&volume::resize(to(), &name, payload.parse().ok()?), recorded, reply)
        }
        "admin.vm.volume.Revert" => {
            plain(&volume::revert(to(), &name, &Revision::parse(&payload).ok()?), recorded, reply)
        }
        "admin.vm.volume.Set.revisions_to_keep" => plain(
            &volume::set_revisions_to_keep(to(), &name, payload.parse().ok()?),
            recorded,
            reply,
        ),
        "admin.vm.volume.Set.rw" => plain(&volume::set_rw(to(), &name, flag), recorded, reply),
        "admin.vm.volume.Set.ephemeral" => {
            plain(&volume::set_ephemeral(to(), &name, flag), recorded, reply)
        }
        "admin.vm.volume.Clear" => plain(&volume::clear(to(), &name), recorded, reply),
        "admin.vm.volume.CloneFrom" => {
            rendered(&volume::clone_from(to(), &name), recorded, reply, |token| {
                Some(token.as_str().to_owned())
            })
        }
        "admin.vm.volume.CloneTo" => {
            let token = volume::CloneToken::parse(&payload).ok()?;
            plain(&volume::clone_to(to(), &name, &token), recorded, reply)
        }
        _ => None,
    }
}

fn creation(recorded: &Request, reply: &[u8]) -> Option<Replayed> {
    let class = vm::Class::from(recorded.method.rsplit_once('.')?.1);
    let payload = String::from_utf8(recorded.payload.to_vec()).ok()?;
    let (mut name, mut label, mut pools) = (None, None, create::Pools::Default);
    for word in payload.split(' ') {
        match word.split_once('=')? {
            ("name", value) => name = QubeName::parse(value).ok(),
            ("label", value) => label = LabelName::parse(value).ok(),
            ("pool", value) => pools = create::Pools::All(PoolName::parse(value).ok()?),
            (key, value) => {
                let volume = VolumeName::parse(key.strip_prefix("pool:")?).ok()?;
                pools = create::Pools::Each(vec![(volume, PoolName::parse(value).ok()?)]);
            }
        }
    }
    let template = match recorded.argument.as_str() {
        "" => None,
        template => Some(QubeName::parse(template).ok()?),
    };
    plain(&create::create(&class, template.as_ref(), &name?, &label?, &pools), recorded, reply)
}

fn devices(recorded: &Request, reply: &[u8]) -> Option<Replayed> {
    let (class, verb) = recorded.method.strip_prefix("admin.vm.device.")?.split_once('.')?;
    let (class, to) = (DeviceClass::parse(class).ok()?, || recorded.destination.clone());
    let address = || {
        let (backend, place) = recorded.argument.split_once('+')?;
        let (port, device_id) =
            place.split_once(':').map_or((place, None), |(port, id)| (port, Some(id)));
        let device_id = device_id.map(|text| DeviceId::parse(text).unwrap());
        Some(DeviceAddress {
            backend: Source::parse(backend).ok()?,
            port: PortId::parse(port).ok()?,
            device_id,
        })
    };
    let payload: Cow<'_, str> = String::from_utf8_lossy(&recorded.payload);
    let words = || payload.split(' ').filter_map(|word| word.strip_suffix('\'')?.split_once("='"));
    let options: Vec<(OptionName, OptionValue)> = words()
        .filter_map(|(key, value)| Some((key.strip_prefix('_')?, value)))
        .map(|(key, value)| (OptionName::parse(key).unwrap(), OptionValue::parse(value).unwrap()))
        .collect();
    let mode = |word: &str| AssignmentMode::ALL.into_iter().find(|mode| mode.as_str() == word);
    match verb {
        "Available" => {
            let port = PortId::parse(&recorded.argument).ok();
            plain(&device::available(&class, to(), port.as_ref()), recorded, reply)
        }
        "Attached" => plain(&device::attached(&class, to()), recorded, reply),
        "Assigned" => plain(&device::assigned(&class, to()), recorded, reply),
        "Attach" => plain(&device::attach(&class, to(), &address()?, &options), recorded, reply),
        "Detach" => plain(&device::detach(&class, to(), &address()?), recorded, reply),
        "Unassign" => plain(&device::unassign(&class, to(), &address()?), recorded, reply),
        "Assign" => {
            let mode = mode(words().find(|(key, _)| *key == "mode")?.1)?;
            plain(&device::assign(&class, to(), &address()?, mode, &options), recorded, reply)
        }
        "Set.assignment" => plain(
            &device::set_assignment(&class, to(), &address()?, mode(&payload)?),
            recorded,
            reply,
        ),
        _ => None,
    }
}
