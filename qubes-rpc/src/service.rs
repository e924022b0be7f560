//! What a service is: one row of the table, computed from one implementation of one trait.

use std::{marker::PhantomData, pin::Pin};

use admin_api::call::vm::PowerState;
use contract::{Aim, Fault, Power, Stream};
use policy::ManagedQube;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    error::Error,
    handle::{Call, Handle},
    host::Host,
    view::View,
};

/// A type with a JSON Schema, where the catalogue is generated; any type elsewhere.
#[cfg(feature = "schema")]
pub trait Described: schemars::JsonSchema {}
#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> Described for T {}
/// A type with a JSON Schema, where the catalogue is generated; any type elsewhere.
#[cfg(not(feature = "schema"))]
pub trait Described {}
#[cfg(not(feature = "schema"))]
impl<T> Described for T {}

/// Whether a service may change anything.
pub trait Effect: Copy {
    /// True when it may not.
    const READ_ONLY: bool;
}

/// A service that looks.
#[derive(Clone, Copy, Debug)]
pub struct Observe;

/// A service that changes something.
#[derive(Clone, Copy, Debug)]
pub struct Change;

impl Effect for Observe {
    const READ_ONLY: bool = true;
}

impl Effect for Change {
    const READ_ONLY: bool = false;
}

/// What admission hands over: the authority for one call.
#[derive(Debug)]
pub enum Admitted {
    /// Over one qube.
    Qube(ManagedQube),
    /// Over all that the caller may see.
    Scope(View),
}

/// What a service is aimed at.
pub trait On: Sized {
    /// How a call names it.
    const AIM: Aim;
    /// Whether a qube is started before the handler runs.
    const RUNNING: bool;
    /// The authority as this type; nothing when it is of the other kind.
    fn from_admitted(admitted: Admitted) -> Option<Self>;
}

impl On for ManagedQube {
    const AIM: Aim = Aim::Qube;
    const RUNNING: bool = false;

    fn from_admitted(admitted: Admitted) -> Option<Self> {
        match admitted {
            Admitted::Qube(qube) => Some(qube),
            Admitted::Scope(_) => None,
        }
    }
}

/// A qube that ran when the call was admitted, or was started for it.
#[derive(Debug)]
pub struct RunningQube(pub ManagedQube);

impl On for RunningQube {
    const AIM: Aim = Aim::Qube;
    const RUNNING: bool = true;

    fn from_admitted(admitted: Admitted) -> Option<Self> {
        ManagedQube::from_admitted(admitted).map(Self)
    }
}

impl On for View {
    const AIM: Aim = Aim::Scope;
    const RUNNING: bool = false;

    fn from_admitted(admitted: Admitted) -> Option<Self> {
        match admitted {
            Admitted::Scope(view) => Some(view),
            Admitted::Qube(_) => None,
        }
    }
}

/// The parameters of a service that takes none besides what it is aimed at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Nothing {}

/// The parameter of a service that travels as raw bytes, and the one that says how.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Its name among the tool's parameters.
    pub field: &'static str,
    /// What the model is told about it.
    pub about: &'static str,
    /// The parameter that says `utf-8` or `base64`.
    pub encoding: &'static str,
    /// Whether a call must have it.
    pub required: bool,
}

/// A field of the result that travels as raw bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// The stream that holds it.
    pub stream: Stream,
    /// Its name in the result.
    pub field: &'static str,
    /// What the model is told about it.
    pub about: &'static str,
    /// The field that says `utf-8` or `base64`.
    pub encoding: &'static str,
    /// Whether the encoding is told always, or only when it is base64.
    pub always: bool,
}

/// One service. Its request's and response's doc comments are what the model reads.
#[expect(async_fn_in_trait, reason = "one thread; no future is sent to another")]
pub trait Service {
    /// The name without the prefix.
    const NAME: &str;
    /// The MCP tool that stands for it; none where only the agent's side itself calls it.
    const TOOL: Option<&str>;
    /// The MCP tool that makes the same call on several qubes at once.
    const BATCH: Option<&str> = None;
    /// A short title for people.
    const TITLE: &str;
    /// What the model reads first.
    const SUMMARY: &str;
    /// The power that a call needs.
    const POWER: Power;
    /// It may destroy something.
    const DESTRUCTIVE: bool;
    /// Calling it twice does what calling it once does.
    const IDEMPOTENT: bool;
    /// It reaches beyond the qubes of this machine.
    const OPEN_WORLD: bool = false;
    /// It may take longer than a second.
    const LONG: bool = false;
    /// What it destroys is gone for good, so that a client should ask its user every time.
    const CONFIRM: bool = false;
    /// The parameter that travels as raw bytes.
    const BODY: Option<Body> = None;
    /// The fields of the result that travel as raw bytes.
    const BYTES: &[Bytes] = &[];
    /// What a call is aimed at.
    type On: On;
    /// Whether it may change anything.
    type Effect: Effect;
    /// Its parameters.
    type Request: DeserializeOwned + Described;
    /// Its result, without the fields that travel as raw bytes.
    type Response: Serialize + Described;

    /// Refuses a request that can never work, before a qube is started for it.
    fn examine(_request: &Self::Request, _host: &Host) -> Result<(), Fault> {
        Ok(())
    }

    /// Does the work. The handle can do no more than the effect says.
    async fn handle(
        on: Self::On,
        request: Self::Request,
        host: Handle<'_, Self::Effect>,
    ) -> Result<Self::Response, Error>;
}

/// Runs a call that was admitted, on a qube that was found in this state.
pub type Run =
    for<'h> fn(Admitted, Option<PowerState>, Map<String, Value>, &'h Host, &'h Call) -> Working<'h>;

/// A handler under way.
pub type Working<'h> = Pin<Box<dyn Future<Output = Result<Value, Error>> + 'h>>;

/// A row of the table: a service as data, and the way to run it.
#[derive(Debug)]
#[expect(missing_docs, reason = "each field is the constant of the same name in `Service`")]
pub struct Entry {
    pub name: &'static str,
    pub tool: Option<&'static str>,
    pub batch: Option<&'static str>,
    pub title: &'static str,
    pub summary: &'static str,
    pub power: Power,
    pub aim: Aim,
    pub running: bool,
    pub read_only: bool,
    pub destructive: bool,
    pub idempotent: bool,
    pub open_world: bool,
    pub long: bool,
    pub confirm: bool,
    pub body: Option<Body>,
    pub bytes: &'static [Bytes],
    /// Runs one call that was admitted, on a qube that was found in this state.
    pub run: Run,
    /// The JSON Schemas of the request and of the response.
    #[cfg(feature = "schema")]
    pub schemas: fn() -> (schemars::Schema, schemars::Schema),
}

impl Entry {
    /// The row of a service.
    pub const fn of<S: Service>() -> Self {
        Self {
            name: S::NAME,
            tool: S::TOOL,
            batch: S::BATCH,
            title: S::TITLE,
            summary: S::SUMMARY,
            power: S::POWER,
            aim: <S::On as On>::AIM,
            running: <S::On as On>::RUNNING,
            read_only: <S::Effect as Effect>::READ_ONLY,
            destructive: S::DESTRUCTIVE,
            idempotent: S::IDEMPOTENT,
            open_world: S::OPEN_WORLD,
            long: S::LONG,
            confirm: S::CONFIRM,
            body: S::BODY,
            bytes: S::BYTES,
            run: run::<S>,
            #[cfg(feature = "schema")]
            schemas: || {
                // What may be left out of an answer is not what may be left out of a request.
                let answers = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
                let answers = answers.into_generator();
                (schemars::schema_for!(S::Request), answers.into_root_schema_for::<S::Response>())
            },
        }
    }
}

fn run<'h, S: Service>(
    admitted: Admitted,
    state: Option<PowerState>,
    args: Map<String, Value>,
    host: &'h Host,
    call: &'h Call,
) -> Working<'h> {
    Box::pin(async move {
        let request = serde_json::from_value(Value::Object(args))
            .map_err(|error| Fault::bad_request(error.to_string()))?;
        S::examine(&request, host)?;
        if let (true, Admitted::Qube(qube), Some(state)) = (S::On::RUNNING, &admitted, state) {
            host.make_running(qube, state).await?;
        }
        let on = S::On::from_admitted(admitted).ok_or(Error::Fault(Fault::Refused {}))?;
        let response = S::handle(on, request, Handle::new(host, call, PhantomData)).await?;
        serde_json::to_value(response).map_err(Error::Encoding)
    })
}
