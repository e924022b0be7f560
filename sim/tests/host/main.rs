//! A simulated host from outside: its programs, its qubes, its qubesd.

#[cfg(test)]
mod command_line;
#[cfg(test)]
mod dom0_services;
#[cfg(test)]
mod hang_up;
#[cfg(test)]
mod in_qubes;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod qubesd;
#[cfg(test)]
mod recorded;
