//! What an agent does besides single calls, and what people do with it, on simulated hosts:
//! transfers, calls on several qubes, resources, the commands of the terminal.

#[cfg(test)]
mod agent_tasks;
#[cfg(test)]
#[path = "../end_to_end/machine.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared with the end-to-end tests")]
mod machine;
#[cfg(test)]
mod people;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod transfers;
