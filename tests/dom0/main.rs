//! dom0's side as one program of tests: the daemon and the operator's commands, against a scripted
//! qubesd and a `qrexec-client` that runs bash here.

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod serial;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod support;
