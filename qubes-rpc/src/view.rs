//! The authority of services that are not aimed at one qube.

use std::{rc::Rc, time::SystemTime};

use admin_api::QubeName;
use contract::Power;
use policy::{Caller, Refused, Scope};

/// All that one agent may see, as the operator's file said when the call was admitted.
#[derive(Clone, Debug)]
pub struct View {
    scope: Rc<Scope>,
    agent: QubeName,
    now: SystemTime,
}

impl View {
    /// The view of an agent that holds this power over anything now.
    pub fn admit(
        scope: Rc<Scope>,
        agent: &QubeName,
        power: Power,
        now: SystemTime,
    ) -> Result<Self, Refused> {
        let _asked_by_policy = scope.caller(agent)?.scope_wide(power, now)?;
        Ok(Self { scope, agent: agent.clone(), now })
    }

    /// The agent.
    pub fn agent(&self) -> &QubeName {
        &self.agent
    }

    /// The agent's block.
    pub fn caller(&self) -> Result<Caller<'_>, Refused> {
        self.scope.caller(&self.agent)
    }

    /// The time of admission, at which grants were looked at.
    pub fn now(&self) -> SystemTime {
        self.now
    }
}
