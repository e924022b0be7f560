//! Tools of revision 2026-07-28 that need answers of the client's before they are done (SEP-2322).

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, InputRequest,
        InputRequests, InputRequiredResult, InputResponses, RequestStateCodec,
    },
    service::RequestContext,
};
use serde_json::{Map, Value, json};

use super::read;
use crate::principals::token::random_bytes;

/// Seals what a client must bring back unchanged.
pub(super) struct States(Option<RequestStateCodec>);

impl States {
    /// With a key of this process alone.
    pub(super) fn new() -> Self {
        Self(random_bytes().ok().map(RequestStateCodec::new_unchecked))
    }

    fn codec(&self) -> Result<&RequestStateCodec, ErrorData> {
        self.0.as_ref().ok_or_else(|| ErrorData::internal_error("no random bytes", None))
    }

    fn seal(&self, round: u64) -> Result<String, ErrorData> {
        self.codec()?
            .seal_json(&json!({ "round": round }))
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))
    }

    /// The round that a client brings back; the first where it brings nothing.
    fn open(&self, state: Option<&str>) -> Result<u64, ErrorData> {
        let Some(state) = state else { return Ok(0) };
        let opened: Value = self
            .codec()?
            .open_json(state)
            .map_err(|_| ErrorData::invalid_params("requestState was changed", None))?;
        Ok(opened.get("round").and_then(Value::as_u64).unwrap_or(0))
    }
}

/// What the client answers to this; an answer that is no object is none.
pub(super) fn answer<'a>(
    answers: Option<&'a InputResponses>,
    key: &str,
) -> Option<&'a Map<String, Value>> {
    answers?.get(key)?.as_object()
}

/// Asks the user for one field.
pub(super) fn form(message: &str, field: &str, kind: &str) -> Result<InputRequest, ErrorData> {
    let mut properties = Map::new();
    properties.insert(field.to_owned(), json!({ "type": kind }));
    read(json!({"method": "elicitation/create", "params": {"mode": "form", "message": message,
        "requestedSchema": {"type": "object", "properties": properties, "required": [field]}}}))
}

fn sampling(question: &str) -> Result<InputRequest, ErrorData> {
    let message = json!({"role": "user", "content": {"type": "text", "text": question}});
    read(json!({"method": "sampling/createMessage",
        "params": {"messages": [message], "maxTokens": 100}}))
}

fn roots() -> Result<InputRequest, ErrorData> {
    read(json!({"method": "roots/list"}))
}

/// Asks for these.
pub(super) fn ask<const N: usize>(
    asked: [(&str, InputRequest); N],
    state: Option<String>,
) -> InputRequiredResult {
    let asked = asked.into_iter().map(|(key, request)| (key.to_owned(), request));
    InputRequiredResult::new(Some(asked.collect::<InputRequests>()), state)
}

fn done(text: String) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(text)]).into()
}

/// Calls the tool of this scenario.
pub(super) fn call(
    states: &States,
    scenario: &str,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let answers = request.input_responses.as_ref();
    let name = || form("What is your name?", "name", "string");
    let response = match scenario {
        "elicitation" => match answer(answers, "user_name") {
            Some(given) => done(format!("Hello, {}!", field(given, "name"))),
            None => ask([("user_name", name()?)], None).into(),
        },
        "sampling" => match answer(answers, "capital_question") {
            Some(given) => done(format!("The model said: {}", field(given, "text"))),
            None => {
                let question = sampling("What is the capital of France?")?;
                ask([("capital_question", question)], None).into()
            }
        },
        "list_roots" => match answer(answers, "client_roots") {
            Some(given) => done(format!("Roots: {}", Value::Object(given.clone()))),
            None => ask([("client_roots", roots()?)], None).into(),
        },
        "request_state" | "tampered_state" => match request.request_state.as_deref() {
            None => {
                let confirm = form("Go on?", "ok", "boolean")?;
                ask([("confirm", confirm)], Some(states.seal(1)?)).into()
            }
            state => {
                states.open(state)?;
                done("state-ok".into())
            }
        },
        "multiple_inputs" => {
            let round = states.open(request.request_state.as_deref())?;
            let keys = ["user_name", "greeting", "client_roots"];
            if round > 0 && keys.iter().all(|key| answer(answers, key).is_some()) {
                done("All inputs came.".into())
            } else {
                let [one, two, three] = keys;
                let asked = [(one, name()?), (two, sampling("Greet me.")?), (three, roots()?)];
                ask(asked, Some(states.seal(1)?)).into()
            }
        }
        "multi_round" => match states.open(request.request_state.as_deref())? {
            0 => ask([("step1", name()?)], Some(states.seal(1)?)).into(),
            1 => {
                let colour = form("Which colour?", "color", "string")?;
                ask([("step2", colour)], Some(states.seal(2)?)).into()
            }
            _ => done("All rounds are done.".into()),
        },
        "capabilities" => return by_capability(request, context),
        other => return Err(ErrorData::invalid_params(format!("no scenario {other:?}"), None)),
    };
    Ok(response)
}

/// Asks only for what the client says that it can do.
fn by_capability(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let can = context.meta.client_capabilities().unwrap_or_default();
    let mut asked = InputRequests::new();
    if can.elicitation.is_some() {
        asked.insert("user_name".into(), form("What is your name?", "name", "string")?);
    }
    if can.sampling.is_some() {
        asked.insert("greeting".into(), sampling("Greet me.")?);
    }
    if can.roots.is_some() {
        asked.insert("client_roots".into(), roots()?);
    }
    if request.input_responses.is_some() || asked.is_empty() {
        return Ok(done("Nothing more is needed.".into()));
    }
    Ok(InputRequiredResult::new(Some(asked), None).into())
}

fn field<'a>(given: &'a Map<String, Value>, name: &str) -> &'a str {
    let inside = given.get("content").and_then(|content| content.get(name));
    inside.and_then(Value::as_str).unwrap_or_default()
}
