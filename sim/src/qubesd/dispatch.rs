//! Which method does what, and what each takes.

use std::{fmt::Write as _, sync::Arc};

use admin_api::Response;
use bytes::Bytes;

use super::{Failure, PowerState, lifecycle, request::Asked};
use crate::host::Shared;

/// Whether a part of a request has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Must,
    MustNot,
    May,
}

/// What a method may be aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    Any,
    Dom0,
    Qube,
}

/// Answers one request. Streams of events are not answered here.
pub(super) async fn answer(shared: &Arc<Shared>, asked: &Asked) -> Result<Bytes, Failure> {
    let (argument, payload, aim) = takes(&asked.method)
        .ok_or_else(|| Failure::protocol(format!("no such method: '{}'", asked.method)))?;
    match (payload, asked.payload.is_empty()) {
        (Need::MustNot, false) => return Err(Failure::protocol("unexpected payload")),
        (Need::Must, true) => return Err(Failure::protocol("expected payload")),
        (_, _) => {}
    }
    match (argument, asked.argument.is_empty()) {
        (Need::MustNot, false) => return Err(Failure::protocol("unexpected argument")),
        (Need::Must, true) => return Err(Failure::protocol("expected an argument")),
        (_, _) => {}
    }
    match (aim, asked.destination == "dom0") {
        (Aim::Dom0, false) => {
            return Err(Failure::protocol("expected destination to be AdminVM"));
        }
        (Aim::Qube, true) => {
            return Err(Failure::protocol("expected destination to not be AdminVM"));
        }
        (_, _) => {}
    }
    call(shared, asked).await.map(|content| Response::Ok(content.into()).encode())
}

fn takes(method: &str) -> Option<(Need, Need, Aim)> {
    use Need::{May, MustNot};
    Some(match method {
        "admin.vm.List"
        | "admin.vm.CurrentState"
        | "admin.vm.Start"
        | "admin.vm.Kill"
        | "admin.vm.Pause"
        | "admin.vm.Unpause"
        | "admin.Events" => (MustNot, MustNot, Aim::Any),
        "admin.vm.Shutdown" => (May, MustNot, Aim::Any),
        _ => return None,
    })
}

async fn call(shared: &Arc<Shared>, asked: &Asked) -> Result<String, Failure> {
    let name = &asked.destination;
    match asked.method.as_str() {
        "admin.vm.List" => Ok(list(shared, name)),
        "admin.vm.CurrentState" => current_state(shared, name),
        "admin.vm.Start" => lifecycle::start(shared, name).await.map(|()| String::new()),
        "admin.vm.Shutdown" => {
            let words: Vec<&str> = match asked.argument.as_str() {
                "" => Vec::new(),
                argument => argument.split('+').collect(),
            };
            if words.iter().any(|word| !matches!(*word, "force" | "wait")) {
                return Err(Failure::protocol("Argument must match: force, wait"));
            }
            let (force, wait) = (words.contains(&"force"), words.contains(&"wait"));
            lifecycle::shutdown(shared, name, force, wait).await.map(|()| String::new())
        }
        "admin.vm.Kill" => lifecycle::kill(shared, name).await.map(|()| String::new()),
        "admin.vm.Pause" => lifecycle::pause(shared, name).map(|()| String::new()),
        "admin.vm.Unpause" => lifecycle::unpause(shared, name).map(|()| String::new()),
        method => Err(Failure::protocol(format!("no such method: '{method}'"))),
    }
}

fn list(shared: &Shared, destination: &str) -> String {
    let system = shared.system();
    let mut text = String::new();
    for qube in system.all().filter(|qube| destination == "dom0" || qube.name == destination) {
        let (class, power) = (qube.class.as_str(), qube.power);
        // Writing to a string cannot fail.
        drop(writeln!(text, "{} class={class} state={power} uuid={}", qube.name, qube.uuid));
    }
    text
}

fn current_state(shared: &Shared, name: &str) -> Result<String, Failure> {
    let system = shared.system();
    let qube = system.get(name).ok_or_else(|| Failure::no_such_domain(name))?;
    let power = qube.power;
    let (memory, most, time) = match (qube.is_admin(), power) {
        (true, _) => (4_194_304, 4_194_304, 699_902_136),
        (false, PowerState::Halted) => (0, 0, 0),
        (false, _) => (409_600, 4_096_000, 150_000_000),
    };
    Ok(format!("mem={memory} mem_static_max={most} cputime={time} power_state={power}"))
}
