//! Which method does what, and what each takes.

use std::{fmt::Write as _, sync::Arc};

use admin_api::Response;
use bytes::Bytes;

use super::{
    Failure, PowerState, System, create, device, firewall, label, lifecycle, property,
    request::Asked, tag, volume,
};
use crate::{host::Shared, qrexec::permits};

type Answer = Result<String, Failure>;

/// Whether a part of a request has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Must,
    Not,
    May,
}

/// What a method may be aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Any,
    Dom0,
    Qube,
}

/// How a method is carried out.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// On the state alone.
    State(fn(&mut System, &Asked) -> Answer),
    /// On the host.
    Host(fn(&Shared, &Asked) -> Answer),
    /// With a wait for processes.
    Wait,
}

struct Method {
    name: &'static str,
    argument: Need,
    payload: Need,
    aim: Aim,
    work: Work,
}

const fn method(name: &'static str, argument: Need, payload: Need, aim: Aim, work: Work) -> Method {
    Method { name, argument, payload, aim, work }
}

use Aim::{Any, Dom0};
use Need::{May, Must, Not};
use Work::{Host, State, Wait};

const METHODS: &[Method] = &[
    method("admin.vm.List", Not, Not, Any, Host(list)),
    method("admin.vm.CurrentState", Not, Not, Any, State(current_state)),
    method("admin.vm.Start", Not, Not, Any, Wait),
    method("admin.vm.Shutdown", May, Not, Any, Wait),
    method("admin.vm.Kill", Not, Not, Any, Wait),
    method("admin.vm.Pause", Not, Not, Any, Wait),
    method("admin.vm.Unpause", Not, Not, Any, Wait),
    method("admin.Events", Not, Not, Any, State(nothing)),
    method("admin.vm.property.List", Not, Not, Any, State(property::list)),
    method("admin.vm.property.Get", Must, Not, Any, State(property::get)),
    method("admin.vm.property.GetAll", Not, Not, Any, State(property::get_all)),
    method("admin.vm.property.GetDefault", Must, Not, Any, State(property::get_default)),
    method("admin.vm.property.Help", Must, Not, Any, State(property::help)),
    method("admin.vm.property.Set", Must, May, Any, State(property::set)),
    method("admin.vm.property.Reset", Must, Not, Any, State(property::reset)),
    method("admin.property.List", Not, Not, Dom0, State(property::list)),
    method("admin.property.Get", Must, Not, Dom0, State(property::get)),
    method("admin.property.GetAll", Not, Not, Dom0, State(property::get_all)),
    method("admin.property.GetDefault", Must, Not, Dom0, State(property::get_default)),
    method("admin.property.Help", Must, Not, Dom0, State(property::help)),
    method("admin.property.Set", Must, May, Dom0, State(property::set)),
    method("admin.property.Reset", Must, Not, Dom0, State(property::reset)),
    method("admin.vm.tag.List", Not, Not, Any, State(tag::list_tags)),
    method("admin.vm.tag.Get", Must, Not, Any, State(tag::get_tag)),
    method("admin.vm.tag.Set", Must, Not, Any, State(tag::set_tag)),
    method("admin.vm.tag.Remove", Must, Not, Any, State(tag::remove_tag)),
    method("admin.vm.feature.List", Not, Not, Any, State(tag::list_features)),
    method("admin.vm.feature.Get", Must, Not, Any, State(tag::get_feature)),
    method("admin.vm.feature.CheckWithTemplate", Must, Not, Any, State(tag::check_feature)),
    method("admin.vm.feature.CheckWithNetvm", Must, Not, Any, State(tag::check_feature)),
    method("admin.vm.feature.CheckWithAdminVM", Must, Not, Any, State(tag::check_feature)),
    method(
        "admin.vm.feature.CheckWithTemplateAndAdminVM",
        Must,
        Not,
        Any,
        State(tag::check_feature),
    ),
    method("admin.vm.feature.Set", Must, May, Any, State(tag::set_feature)),
    method("admin.vm.feature.Remove", Must, Not, Any, State(tag::remove_feature)),
    method("admin.vm.firewall.Get", Not, Not, Aim::Qube, Host(firewall::get)),
    method("admin.vm.firewall.Set", Not, Must, Aim::Qube, Host(firewall::set)),
    method("admin.vm.firewall.Reload", Not, Not, Aim::Qube, Host(firewall::reload)),
    method("admin.label.List", Not, Not, Dom0, State(label::list)),
    method("admin.label.Get", Must, Not, Dom0, State(label::get)),
    method("admin.label.Index", Must, Not, Dom0, State(label::index)),
    method("admin.label.Create", Must, Must, Dom0, State(label::create)),
    method("admin.label.Remove", Must, Not, Dom0, State(label::remove)),
    method("admin.vm.volume.List", Not, Not, Any, State(volume::list)),
    method("admin.vm.volume.Info", Must, Not, Any, State(volume::info)),
    method("admin.vm.volume.CloneFrom", Must, Not, Any, State(volume::clone_from)),
    method("admin.vm.volume.CloneTo", Must, Must, Any, Host(volume::clone_to)),
    method("admin.vm.volume.Resize", Must, Must, Any, State(volume::resize)),
    method("admin.pool.List", Not, Not, Dom0, State(volume::list_pools)),
    method("admin.pool.Info", Must, Not, Dom0, State(volume::pool_info)),
    method("admin.deviceclass.List", Not, Not, Dom0, State(volume::device_classes)),
    method("admin.vmclass.List", Not, Not, Dom0, State(volume::vm_classes)),
    method("admin.vm.device.block.Available", May, Not, Any, State(device::available)),
    method("admin.vm.device.block.Attached", May, Not, Any, State(device::attached)),
    method("admin.vm.device.block.Assigned", May, Not, Any, State(device::assigned)),
    method("admin.vm.device.block.Attach", Must, May, Any, State(device::attach)),
    method("admin.vm.device.block.Detach", Must, Not, Any, State(device::detach)),
    method("admin.vm.device.usb.Available", May, Not, Any, State(device::available)),
    method("admin.vm.device.usb.Attached", May, Not, Any, State(device::attached)),
    method("admin.vm.device.usb.Assigned", May, Not, Any, State(device::assigned)),
    method("admin.vm.device.usb.Attach", Must, May, Any, State(device::attach)),
    method("admin.vm.device.usb.Detach", Must, Not, Any, State(device::detach)),
    method("admin.vm.device.mic.Available", May, Not, Any, State(device::available)),
    method("admin.vm.device.mic.Attached", May, Not, Any, State(device::attached)),
    method("admin.vm.device.mic.Assigned", May, Not, Any, State(device::assigned)),
    method("admin.vm.device.mic.Attach", Must, May, Any, State(device::attach)),
    method("admin.vm.device.mic.Detach", Must, Not, Any, State(device::detach)),
    method("admin.vm.device.pci.Available", May, Not, Any, State(device::available)),
    method("admin.vm.device.pci.Attached", May, Not, Any, State(device::attached)),
    method("admin.vm.device.pci.Assigned", May, Not, Any, State(device::assigned)),
    method("admin.vm.notes.Get", Not, Not, Aim::Qube, State(volume::get_notes)),
    method("admin.vm.notes.Set", Not, Must, Aim::Qube, State(volume::set_notes)),
    method("admin.vm.Create.AppVM", May, May, Dom0, Host(create::create)),
    method("admin.vm.Create.StandaloneVM", May, May, Dom0, Host(create::create)),
    method("admin.vm.Create.TemplateVM", May, May, Dom0, Host(create::create)),
    method("admin.vm.Create.DispVM", May, May, Dom0, Host(create::create)),
    method("admin.vm.CreateDisposable", May, May, Any, Host(create::create_disposable)),
    method("admin.vm.Remove", Not, Not, Any, Host(create::remove)),
];

/// The names of all methods.
pub(crate) fn methods() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|method| method.name)
}

/// Answers one request. Of `admin.Events` only the form is looked at.
pub(super) async fn answer(shared: &Arc<Shared>, asked: &Asked) -> Result<Bytes, Failure> {
    let unknown = || Failure::protocol(format!("no such method: '{}'", asked.method));
    let method = METHODS.iter().find(|method| method.name == asked.method).ok_or_else(unknown)?;
    let dom0 = asked.destination == "dom0";
    let wrong = match (method, asked.payload.is_empty(), asked.argument.is_empty(), dom0) {
        (Method { payload: Not, .. }, false, _, _) => Some("unexpected payload"),
        (Method { payload: Must, .. }, true, _, _) => Some("expected payload"),
        (Method { argument: Not, .. }, _, false, _) => Some("unexpected argument"),
        (Method { argument: Must, .. }, _, true, _) => Some("expected an argument"),
        (Method { aim: Dom0, .. }, _, _, false) => Some("expected destination to be AdminVM"),
        (Method { aim: Aim::Qube, .. }, _, _, true) => {
            Some("expected destination to not be AdminVM")
        }
        (_, _, _, _) => None,
    };
    if let Some(message) = wrong {
        return Err(Failure::protocol(message));
    }
    let content = match method.work {
        State(work) => work(&mut shared.system(), asked)?,
        Host(work) => work(shared, asked)?,
        Wait => wait(shared, asked).await?,
    };
    Ok(Response::Ok(content.into()).encode())
}

async fn wait(shared: &Arc<Shared>, asked: &Asked) -> Answer {
    let name = &asked.destination;
    match asked.method.as_str() {
        "admin.vm.Start" => lifecycle::start(shared, name).await?,
        "admin.vm.Kill" => lifecycle::kill(shared, name).await?,
        "admin.vm.Pause" => lifecycle::pause(shared, name).await?,
        "admin.vm.Unpause" => lifecycle::unpause(shared, name).await?,
        _ => {
            let words: Vec<&str> = match asked.argument.as_str() {
                "" => Vec::new(),
                argument => argument.split('+').collect(),
            };
            if words.iter().any(|word| !matches!(*word, "force" | "wait")) {
                return Err(Failure::protocol("Argument must match: force, wait"));
            }
            let (force, wait) = (words.contains(&"force"), words.contains(&"wait"));
            lifecycle::shutdown(shared, name, force, wait).await?;
        }
    }
    Ok(String::new())
}

fn nothing(_system: &mut System, _asked: &Asked) -> Answer {
    Ok(String::new())
}

/// A source other than dom0 sees what its policy lets it see.
fn list(shared: &Shared, asked: &Asked) -> Answer {
    let system = shared.system();
    let named = |name: &str| asked.destination == "dom0" || asked.destination == name;
    let mut text = String::new();
    for qube in system.all().filter(|qube| named(&qube.name)) {
        if asked.source != "dom0"
            && !permits(shared, &system, "admin.vm.List+", &asked.source, &qube.name)
        {
            continue;
        }
        let (class, power) = (qube.class.as_str(), qube.power);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} class={class} state={power} uuid={}", qube.name, qube.uuid);
    }
    Ok(text)
}

fn current_state(system: &mut System, asked: &Asked) -> Answer {
    let qube = system.require(&asked.destination)?;
    let power = qube.power;
    let static_max = match system.value(qube, "maxmem").as_str() {
        "0" => 0,
        _ => 4_096_000,
    };
    let (memory, most, time) = match (qube.is_admin(), power) {
        (true, _) => (4_194_304, 4_194_304, 699_902_136),
        (false, PowerState::Halted) => (0, 0, 0),
        (false, _) => (409_600, static_max, 150_000_000),
    };
    Ok(format!("mem={memory} mem_static_max={most} cputime={time} power_state={power}"))
}
