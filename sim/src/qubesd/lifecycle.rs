//! Starting, stopping, pausing: state, events, and the processes themselves.

use std::{
    ptr,
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, time::timeout};

use super::{Class, Failure, PowerState, System, create};
use crate::{
    host::Shared,
    qube::{Running, Setup},
    wire::Order,
};

type Done = Result<(), Failure>;

/// Makes a disposable of this template for the source, and starts it.
pub(crate) async fn disposable(
    shared: &Arc<Shared>,
    template: &str,
    source: &str,
) -> Result<String, Failure> {
    let name = create::disposable(shared, template, source)?;
    start(shared, &name).await.map(|()| name)
}

/// What a start needs to know, taken while the state is locked.
enum Start {
    Already,
    Begun {
        setup: Setup,
        netvm: Option<String>,
    },
    /// Something else is under way; look again after the next event.
    Wait(watch::Receiver<usize>),
}

/// `admin.vm.Start`. Starting what runs is no error, as with the real one.
pub(crate) async fn start(shared: &Arc<Shared>, name: &str) -> Done {
    loop {
        let begun = begin(shared, name)?;
        match begun {
            Start::Already => return Ok(()),
            Start::Wait(mut changes) => {
                // The log lives as long as the host.
                drop(changes.changed().await);
            }
            Start::Begun { setup, netvm } => {
                if let Some(netvm) = netvm {
                    drop(Box::pin(start(shared, &netvm)).await);
                }
                return finish(shared, name, &setup).await;
            }
        }
    }
}

fn begin(shared: &Shared, name: &str) -> Result<Start, Failure> {
    let mut system = shared.system();
    let qube = system.get(name).ok_or_else(|| Failure::no_such_domain(name))?;
    match (qube.class, qube.power) {
        (Class::Admin, _) => {
            return Err(Failure::new("QubesVMNotHaltedError", "Cannot start Dom0 fake domain!"));
        }
        (_, PowerState::Running | PowerState::Paused) => return Ok(Start::Already),
        (_, PowerState::Transient | PowerState::Halting) => {
            return Ok(Start::Wait(system.events.changes()));
        }
        (_, PowerState::Halted) => {}
    }
    if let Some(why) = qube.feature("prohibit-start") {
        let message = format!("Qube start is prohibited. Rationale: {why}");
        system.emit(name, "domain-start-failed", &[("reason", &message)]);
        return Err(Failure::new("QubesException", message));
    }
    let netvm = Some(system.value(qube, "netvm")).filter(|netvm| !netvm.is_empty());
    let setup = shared.setup(&system, qube);
    let guid = [("start_guid", "True")];
    system.emit(name, "domain-pre-start", &[("start_guid", "True"), ("mem_required", "None")]);
    system.emit(name, "domain-verify-files", &[]);
    system.emit(name, "domain-pre-spawn", &guid);
    if let Some(qube) = system.get_mut(name) {
        qube.power = PowerState::Transient;
    }
    Ok(Start::Begun { setup, netvm })
}

async fn finish(shared: &Arc<Shared>, name: &str, setup: &Setup) -> Done {
    let started = Running::start(shared.layout.init(), setup.clone()).await;
    let mut system = shared.system();
    let running = match started {
        Ok(running) => Arc::new(running),
        Err(error) => {
            if let Some(qube) = system.get_mut(name) {
                qube.power = PowerState::Halted;
            }
            system.emit(name, "domain-start-failed", &[("reason", &error.to_string())]);
            return Err(Failure::new("QubesVMError", format!("Cannot start '{name}': {error}")));
        }
    };
    mark_running(&mut system, name, &running);
    let guid = [("start_guid", "True")];
    reset(&system, name);
    system.emit(name, "domain-spawn", &guid);
    for event in ["domain-qdb-create", "domain-pre-unpaused", "domain-unpaused"] {
        system.emit(name, event, &[]);
    }
    system.emit(name, "domain-start", &guid);
    drop(system);
    watch_end(shared, name, &running);
    Ok(())
}

/// Lets a qube count as running from the start of the host on. Its init starts when it is needed.
pub(crate) fn assume_running(shared: &Arc<Shared>, name: &str) -> Done {
    let mut system = shared.system();
    let setup = shared.setup(&system, system.require(name)?);
    let running = Arc::new(Running::idle(shared.layout.init(), setup));
    mark_running(&mut system, name, &running);
    drop(system);
    watch_end(shared, name, &running);
    Ok(())
}

fn mark_running(system: &mut System, name: &str, running: &Arc<Running>) {
    let xid = system.take_xid();
    if let Some(qube) = system.get_mut(name) {
        qube.power = PowerState::Running;
        qube.xid = xid;
        qube.start_time =
            SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|time| time.as_secs_f64());
        qube.running = Some(Arc::clone(running));
    }
}

/// Notes when the processes of a qube have ended, whoever ended them.
fn watch_end(shared: &Arc<Shared>, name: &str, running: &Arc<Running>) {
    let (shared, name) = (Arc::downgrade(shared), name.to_owned());
    let (mut ended, running) = (running.ended(), Arc::downgrade(running));
    tokio::spawn(async move {
        // An error means that the task that watched the process is gone, and so is the process.
        drop(ended.wait_for(|ended| *ended).await);
        if let Some(shared) = shared.upgrade() {
            halted(&shared, &name, &running);
        }
    });
}

fn reset(system: &System, name: &str) {
    for property in ["xid", "stubdom_xid", "start_time"] {
        system.emit(name, format!("property-reset:{property}"), &[("name", property)]);
    }
}

/// Notes that a qube has ended. A disposable goes with its end.
fn halted(shared: &Shared, name: &str, ended: &Weak<Running>) {
    let system = &mut *shared.system();
    let Some(qube) = system.get_mut(name) else { return };
    // It may run again already, with other processes.
    if qube.running.as_ref().is_none_or(|running| !ptr::eq(Arc::as_ptr(running), ended.as_ptr())) {
        return;
    }
    qube.running = None;
    qube.power = PowerState::Halted;
    qube.xid = 0;
    qube.start_time = None;
    let disposable = qube.class == Class::Disposable && qube.set("auto_cleanup") == Some("True");
    system.emit(name, "domain-stopped", &[]);
    reset(system, name);
    system.emit(name, "domain-shutdown", &[]);
    system.emit(name, "device-list-change:usb", &[]);
    if disposable {
        system.emit("", "domain-pre-delete", &[("vm", name)]);
        shared.forget(system, name);
        system.emit("", "domain-delete", &[("vm", name)]);
    }
}

fn powered_off(name: &str) -> Failure {
    Failure::new("QubesVMNotStartedError", format!("Domain is powered off: '{name}'"))
}

fn not_running(name: &str) -> Failure {
    let message = format!("Domain not running (either powered off or paused): '{name}'");
    Failure::new("QubesVMNotRunningError", message)
}

/// `admin.vm.Shutdown`. Without `wait` it is over before the qube has ended.
pub(crate) async fn shutdown(shared: &Arc<Shared>, name: &str, force: bool, wait: bool) -> Done {
    let (running, heeds, patience) = {
        let mut system = shared.system();
        let (running, heeds) = ask_to_end(&mut system, name, force)?;
        let seconds = system.get(name).map(|qube| system.value(qube, "shutdown_timeout"));
        let seconds = seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
        (running, heeds, Duration::from_secs(seconds))
    };
    if heeds {
        // An init that cannot take orders any more has ended, which its watcher notices.
        drop(running.order(&Order::Shutdown, &[]).await);
    }
    let mut ended = running.ended();
    if wait {
        let late = timeout(patience, ended.wait_for(|ended| *ended)).await.is_err();
        if late {
            let message = format!("Domain shutdown timed out: '{name}'");
            shared.system().emit(name, "domain-shutdown-failed", &[("reason", &message)]);
            return Err(Failure::new("QubesVMShutdownTimeoutError", message));
        }
        settle(shared, name).await;
    }
    Ok(())
}

/// The processes, and whether they heed an order to end.
fn ask_to_end(
    system: &mut System,
    name: &str,
    force: bool,
) -> Result<(Arc<Running>, bool), Failure> {
    let qube = system.get(name).ok_or_else(|| Failure::no_such_domain(name))?;
    if qube.is_admin() {
        return Err(Failure::Empty);
    }
    let (power, stubborn, running) = (qube.power, qube.stubborn, qube.running.clone());
    let Some(running) = running else { return Err(powered_off(name)) };
    let word = if force { "True" } else { "False" };
    system.emit(name, "domain-pre-shutdown", &[("force", word)]);
    let connected = system.connected(name);
    let failure = if !force && !connected.is_empty() {
        let names = connected.join(", ");
        let message = format!("There are other VMs connected to this VM: {names}");
        Some(Failure::new("QubesVMInUseError", message))
    } else {
        (!force && power == PowerState::Paused).then(|| not_running(name))
    };
    if let Some(failure) = failure {
        if let Failure::Exception(exception) = &failure {
            let reason = [("reason", exception.message.as_str())];
            system.emit(name, "domain-shutdown-failed", &reason);
        }
        return Err(failure);
    }
    let heeds = !stubborn && power != PowerState::Paused;
    if power == PowerState::Paused {
        running.kill();
    } else if let Some(qube) = system.get_mut(name).filter(|_| heeds) {
        qube.power = PowerState::Halting;
    }
    Ok((running, heeds))
}

/// Waits until the end of a qube has been noted.
async fn settle(shared: &Shared, name: &str) {
    let mut changes = shared.system().events.changes();
    let over =
        |shared: &Shared| shared.system().get(name).is_none_or(|qube| qube.running.is_none());
    while !over(shared) && changes.changed().await.is_ok() {}
}

/// `admin.vm.Kill`.
pub(crate) async fn kill(shared: &Arc<Shared>, name: &str) -> Done {
    let running = {
        let system = shared.system();
        let qube = system.get(name).ok_or_else(|| Failure::no_such_domain(name))?;
        if qube.is_admin() {
            return Err(Failure::new("QubesVMError", "Cannot kill Dom0 fake domain!"));
        }
        qube.running.clone().ok_or_else(|| powered_off(name))?
    };
    running.kill();
    settle(shared, name).await;
    Ok(())
}

/// `admin.vm.Pause`.
pub(crate) async fn pause(shared: &Shared, name: &str) -> Done {
    turn(shared, name, &Order::Pause, PowerState::Paused, "paused", not_running).await
}

/// `admin.vm.Unpause`.
pub(crate) async fn unpause(shared: &Shared, name: &str) -> Done {
    turn(shared, name, &Order::Unpause, PowerState::Running, "unpaused", |name| {
        Failure::new("QubesVMNotPausedError", format!("Domain is not paused: '{name}'"))
    })
    .await
}

async fn turn(
    shared: &Shared,
    name: &str,
    order: &Order,
    power: PowerState,
    event: &str,
    failure: fn(&str) -> Failure,
) -> Done {
    let running = {
        let mut system = shared.system();
        let qube = system.get_mut(name).ok_or_else(|| Failure::no_such_domain(name))?;
        if qube.is_admin() {
            return Err(Failure::Empty);
        }
        let pauses = power == PowerState::Paused;
        let fits = qube.power == PowerState::Paused || pauses && qube.power == PowerState::Running;
        let running = qube.running.clone().filter(|_| fits).ok_or_else(|| failure(name))?;
        qube.power = power;
        system.emit(name, format!("domain-pre-{event}"), &[]);
        running
    };
    // As with the shutdown: an init that does not take orders has ended.
    drop(running.order(order, &[]).await);
    shared.system().emit(name, format!("domain-{event}"), &[]);
    Ok(())
}
