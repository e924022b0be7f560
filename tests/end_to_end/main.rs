//! Salt Bridge from an MCP client to commands in qubes, and from the older program's calls to their
//! answers: the real agent, qrexec policy as installed, the real daemon, on simulated hosts.

#[cfg(test)]
mod between;
#[cfg(test)]
mod births;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod escape;
#[cfg(test)]
mod files;
#[cfg(test)]
mod job_ends;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod network;
#[cfg(test)]
mod older_program;
#[cfg(test)]
mod principals;
#[cfg(test)]
mod qmcp;
#[cfg(test)]
mod recorded_calls;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod session;
#[cfg(test)]
mod shape;
#[cfg(test)]
mod subscriptions;
#[cfg(test)]
mod tools;
