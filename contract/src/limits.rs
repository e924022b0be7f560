//! Every limit and every time of the program, in one place.

use std::{ops::RangeInclusive, time::Duration};

/// The longest service descriptor that dom0 reads, in bytes without its NUL.
pub const DESCRIPTOR_BYTES: usize = 4096;
/// The longest file of agents and qubes that dom0 reads, in bytes.
pub const SCOPE_BYTES: usize = 256 * 1024;
/// The most files of qrexec policy, included ones counted each time, that are read for a decision.
pub const POLICY_FILES: usize = 4096;
/// The deepest that files of qrexec policy may include one another.
pub const POLICY_INCLUDE_DEPTH: usize = 32;
/// The longest request line, in bytes with its newline.
pub const REQUEST_LINE_BYTES: usize = 64 * 1024;
/// The most raw bytes that may follow a request line.
pub const BODY_BYTES: u64 = 8 * 1024 * 1024;
/// The longest unframed request of the older program, for every service but `VmWriteFile`.
pub const PLAIN_REQUEST_BYTES: usize = 64 * 1024;
/// The longest unframed `VmWriteFile` request: 8 MiB of content, escaped as JSON.
pub const PLAIN_WRITE_BYTES: usize = 12 * 1024 * 1024;
/// The most keys of an unframed request.
pub const PLAIN_KEYS: usize = 32;
/// The most bytes of a key of an unframed request.
pub const PLAIN_KEY_BYTES: usize = 64;
/// The memory that the long requests of one agent may take at once; further ones wait.
pub const REQUESTS_PER_AGENT_BYTES: usize = 64 * 1024 * 1024;
/// The longest payload of one frame, in bytes.
pub const FRAME_BYTES: usize = 64 * 1024;
/// The longest JSON result that the agent's side puts together from its parts, in bytes.
pub const RESULT_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of one stream of output that one answer holds.
pub const OUTPUT_BYTES: u64 = 2 * 1024 * 1024;
/// The characters of each stream that an answer holds unless the caller asks for another number.
pub const OUTPUT_DEFAULT_CHARS: u64 = 8_000;
/// The longest command, in bytes.
pub const COMMAND_BYTES: usize = 60 * 1024;
/// The longest path that Linux takes, in bytes without its NUL.
pub const PATH_BYTES: usize = 4095;
/// The longest file that an edit takes, before and after it, in bytes.
pub const EDIT_BYTES: usize = 2 * 1024 * 1024;
/// Edits that dom0 works on at once, each with a file in memory; further ones wait.
pub const EDITS_AT_ONCE: usize = 4;
/// The longest message that passes on what another program said, in bytes.
pub const MESSAGE_BYTES: usize = 4096;
/// The most names that one question for properties may hold.
pub const PROPERTY_NAMES: usize = 64;
/// The memory that an agent may give to a qube, in MiB.
pub const MEMORY_MIB: RangeInclusive<i64> = 64..=16 * 1024;
/// The virtual processors that an agent may give to a qube.
pub const VCPUS: RangeInclusive<i64> = 1..=16;
/// The longest name of a feature that an agent sets, in bytes.
pub const FEATURE_NAME_BYTES: usize = 64;
/// The longest value of a feature that an agent sets, in bytes.
pub const FEATURE_BYTES: usize = 1024;
/// The most features that a qube has when an agent adds one; all are read at every start of qubesd.
pub const FEATURES: usize = 128;
/// The longest time for which events are watched in one call, in seconds.
pub const WATCH_SECONDS: RangeInclusive<u64> = 1..=120;
/// The most events that one call gives; it ends with the last of them.
pub const EVENTS: usize = 1000;

/// The time a command gets unless the caller asks for another.
pub const COMMAND_DEFAULT: Duration = Duration::from_secs(30);
/// The longest time a command may ask for, unless the operator sets another ceiling.
pub const COMMAND_CEILING: Duration = Duration::from_secs(3600);
/// The time a shutdown gets unless the caller asks for another.
pub const SHUTDOWN_DEFAULT: Duration = Duration::from_secs(60);
/// The longest time a caller may wait for a shutdown.
pub const SHUTDOWN_CEILING: Duration = Duration::from_secs(600);
/// The time a start may take.
pub const START: Duration = Duration::from_secs(180);
/// The time from SIGTERM to SIGKILL for a command that has to end.
pub const KILL_GRACE: Duration = Duration::from_secs(1);
/// The time in which a command that has to end is dead in its qube, and its end reported.
pub const KILL: Duration = Duration::from_secs(5);
/// The time for reading or writing one range of a file in a qube.
pub const FILE: Duration = Duration::from_secs(120);
/// The time for each half of an edit: reading the file, and writing it.
pub const EDIT: Duration = Duration::from_secs(30);
/// The time for one question to qubesd that is answered at once.
pub const QUBESD: Duration = Duration::from_secs(20);
/// The time in which qubesd makes, enlarges or removes a qube.
pub const CREATE: Duration = Duration::from_secs(120);
/// The time in which qubesd copies one volume.
pub const COPY_VOLUME: Duration = Duration::from_secs(1800);
/// The time for a caller's descriptor and request line to arrive.
pub const REQUEST: Duration = Duration::from_secs(10);
/// The time for the raw bytes behind a request line to arrive.
pub const BODY: Duration = Duration::from_secs(60);
/// An admission that is older than this when the request is complete is made anew, so that a
/// caller that sends slowly keeps no authority that has ended meanwhile.
pub const ADMISSION: Duration = Duration::from_millis(100);
/// After this silence an unframed request without fields counts as complete.
pub const PLAIN_SILENCE: Duration = Duration::from_millis(500);
/// The longest a caller may read nothing while dom0 has something to say.
pub const STALLED_READER: Duration = Duration::from_secs(60);
/// The shortest time between two progress frames of one call.
pub const PROGRESS: Duration = Duration::from_millis(500);
/// The longest sleep of those that wait for a moment of the clock, which may be set meanwhile.
pub const CLOCK: Duration = Duration::from_secs(1);
/// The time between two looks whether a call under way still has its authority.
pub const AUTHORITY: Duration = Duration::from_millis(500);
/// The time between two looks whether its qube still has the tags that a call under way rests on.
pub const AUTHORITY_BY_TAGS: Duration = Duration::from_secs(5);
/// The daemon ends when it had nothing to do for this long.
pub const IDLE: Duration = Duration::from_secs(60);

/// Calls of the agent's side that are under way on qrexec at once.
pub const CALLS_IN_FLIGHT: usize = 8;
/// Of these, the calls that may take longer than a second.
pub const LONG_CALLS_IN_FLIGHT: usize = 6;
/// The qubes that one call of a tool for several names at most.
pub const BATCH_QUBES: usize = 32;
/// The qubes of such a call that are worked on at once, so that other calls find a place.
pub const BATCH_AT_ONCE: usize = 4;
/// Calls of one agent that dom0 works on at once; further ones get `Busy`.
pub const CALLS_PER_AGENT: usize = 64;
/// Connections of one agent that dom0 holds at once; further ones are closed without an answer, so
/// that one agent cannot take all connections from the others.
pub const CONNECTIONS_PER_AGENT: usize = 80;
/// Questions to qubesd that one list has under way at once.
pub const QUESTIONS_AT_ONCE: usize = 16;
/// Connections that dom0 holds at once; further ones wait to be accepted.
pub const CONNECTIONS: usize = 128;
/// Questions to qubesd that all lists together have under way at once, each on a descriptor.
pub const QUESTIONS: usize = 64;
/// The `qubes.ConnectTCP` rules that one agent may have; every call on qrexec reads them.
pub const TCP_RULES_PER_AGENT: usize = 128;
/// The time between two looks whether `qubes.ConnectTCP` rules are still granted, besides those at
/// qubesd's events.
pub const TCP_LOOK: Duration = Duration::from_secs(60);
/// The pause after a connection could not be accepted, so that a lack of descriptors does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most bytes that are read and dropped after a fault, so that its answer arrives.
pub const DRAIN_BYTES: u64 = 64 * 1024 * 1024;

/// The longest that a job may run; also how long it runs when the caller sets no limit.
pub const JOB_CEILING: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an ended job is known and its output kept.
pub const JOB_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest that a call waits for news of a job.
pub const JOB_WAIT: Duration = Duration::from_secs(300);
/// The size of the files in which a job's output lies in its qube, in bytes.
pub const JOB_PIECE_BYTES: u64 = 2 * 1024 * 1024;
/// How many of them are kept of each stream: the first, and the last ones.
pub const JOB_PIECES: u64 = 8;
/// The jobs of one agent that run in one qube at once.
pub const JOBS_PER_QUBE: usize = 16;
/// The jobs of one agent that dom0 knows, ended ones included; the oldest ended ones are forgotten.
pub const JOBS_PER_AGENT: usize = 64;
/// The time for one look at a job, besides what a caller waits for news.
pub const JOB_LOOK: Duration = Duration::from_secs(30);
/// The time that a list of jobs gives one qube to tell how they are.
pub const JOB_LIST_LOOK: Duration = Duration::from_secs(8);
/// The time for one round over all jobs in one qube; what is left is done in the next round.
pub const JOB_ROUND: Duration = Duration::from_secs(90);
/// The time between two looks whether the grants of running jobs stand in the operator's file.
pub const JOB_GRANTS: Duration = Duration::from_secs(1);
/// The time between two looks at what qubesd and the qubes say of running jobs.
pub const JOB_STATES: Duration = Duration::from_secs(60);
/// The most calls of `ScopeWatch` that one agent may have under way.
pub const WATCHES_PER_AGENT: usize = 4;
/// The longest that one call of `ScopeWatch` lasts.
pub const WATCH: Duration = Duration::from_secs(3600);

/// The longest body of an HTTP request, in bytes: a call with [`BODY_BYTES`], escaped as JSON.
pub const HTTP_BODY_BYTES: usize = PLAIN_WRITE_BYTES;
/// Bodies up to this many bytes are read at once; longer ones share [`HTTP_BODIES_BYTES`].
pub const HTTP_SHORT_BODY_BYTES: usize = 64 * 1024;
/// The memory that all long bodies of HTTP requests may take at once; further ones wait.
pub const HTTP_BODIES_BYTES: usize = 64 * 1024 * 1024;
/// The longest head of an HTTP request, in bytes.
pub const HTTP_HEAD_BYTES: usize = 16 * 1024;
/// The most header fields of an HTTP request.
pub const HTTP_HEADERS: usize = 64;
/// The time for the head of an HTTP request to arrive.
pub const HTTP_HEAD: Duration = Duration::from_secs(10);
/// Connections that have shown no token yet; a further one takes the place of the oldest.
pub const HTTP_NEWCOMERS: usize = 128;
/// Connections that have shown a token; a further one is turned away.
pub const HTTP_CONNECTIONS: usize = 128;
/// MCP sessions of one principal; a further one takes the place of the one unused for longest.
pub const HTTP_SESSIONS: usize = 16;
/// An MCP session in which nothing happened for this long ends. Longer than any call may take.
pub const HTTP_SESSION: Duration = Duration::from_secs(2 * 3600);
/// The time that calls under way get when the server is told to end.
pub const HTTP_FAREWELL: Duration = Duration::from_secs(2);
