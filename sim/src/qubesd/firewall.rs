//! `admin.vm.firewall.*`, with the rules in `firewall.xml` as the real qubesd keeps them.

use std::{
    fs, io,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use admin_api::{
    firewall::{Rule, default_rules, parse_rules, render_rules},
    firewall_xml,
};

use super::{Failure, request::Asked};
use crate::host::Shared;

type Answer = Result<String, Failure>;

fn file(shared: &Shared, asked: &Asked) -> Result<PathBuf, Failure> {
    let system = shared.system();
    Ok(shared.settings(system.require(&asked.destination)?).join("firewall.xml"))
}

/// Rules whose time has come are gone.
fn alive(mut rules: Vec<Rule>) -> Vec<Rule> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    rules.retain(|rule| !rule.has_expired(now));
    rules
}

pub(super) fn get(shared: &Shared, asked: &Asked) -> Answer {
    let rules = match fs::read_to_string(file(shared, asked)?) {
        Ok(text) => firewall_xml::parse(&text).map_err(|_| Failure::Empty)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => default_rules(),
        Err(_) => return Err(Failure::Empty),
    };
    Ok(render_rules(&alive(rules)))
}

pub(super) fn set(shared: &Shared, asked: &Asked) -> Answer {
    let text = str::from_utf8(&asked.payload).ok().filter(|text| text.is_ascii());
    let text = text.ok_or_else(|| Failure::protocol("Rules contains non-ASCII characters"))?;
    let rules = alive(parse_rules(text).map_err(|_| Failure::Empty)?);
    let xml = firewall_xml::render(&rules).map_err(|_| Failure::Empty)?;
    let path = file(shared, asked)?;
    let new = path.with_extension("xml.new");
    fs::write(&new, xml).and_then(|()| fs::rename(&new, &path)).map_err(|_| Failure::Empty)?;
    reload(shared, asked)
}

pub(super) fn reload(shared: &Shared, asked: &Asked) -> Answer {
    shared.system().emit(&asked.destination, "firewall-changed", &[]);
    Ok(String::new())
}
