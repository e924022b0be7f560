//! On whose behalf a request is served, and what that may reach.
//!
//! It narrows what dom0 grants and never widens it: dom0 decides every call all the same.

use std::{collections::BTreeSet, sync::Arc};

use contract::{Aim, Power, PrincipalName};
use tokio_util::sync::CancellationToken;

use crate::{catalogue::Row, qrexec::CallError};

tokio::task_local! {
    static CALLER: Arc<Caller>;
}

/// Who makes a request.
#[derive(Debug)]
pub(crate) struct Caller {
    name: Option<PrincipalName>,
    limits: Limits,
    revoked: CancellationToken,
}

/// What a caller may reach of what dom0 grants; none means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The names of tools.
    pub(crate) tools: Option<BTreeSet<String>>,
    /// The names of qubes.
    pub(crate) qubes: Option<BTreeSet<String>>,
}

impl Caller {
    /// One that has a name, or is the owner of this program, and these limits.
    pub(crate) fn new(name: Option<PrincipalName>, limits: Limits) -> Self {
        Self { name, limits, revoked: CancellationToken::new() }
    }

    /// The one for whom the current task works, which is known while a request is taken in.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CALLER.try_with(Arc::clone).ok()
    }

    /// Takes in a request of this caller.
    pub(crate) async fn scope<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        CALLER.scope(Arc::clone(self), work).await
    }

    /// The name, of one that has one.
    pub(crate) fn name(&self) -> Option<&PrincipalName> {
        self.name.as_ref()
    }

    /// Cancelled when the caller's token is taken back.
    pub(crate) fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }

    /// Whether the tool with this name is within the limits.
    pub(crate) fn may_use(&self, tool: &str) -> bool {
        self.limits.tools.as_ref().is_none_or(|tools| tools.contains(tool))
    }

    /// Whether the qube with this name is within the limits.
    pub(crate) fn may_reach(&self, qube: &str) -> bool {
        self.limits.qubes.as_ref().is_none_or(|qubes| qubes.contains(qube))
    }

    /// Whether all qubes are within the limits.
    pub(crate) fn may_reach_all(&self) -> bool {
        self.limits.qubes.is_none()
    }

    /// Whether a call of this service on this qube is within the limits. One that is limited to some
    /// qubes makes none, since what it made would be none of them.
    pub(crate) fn may_call(&self, row: &Row, qube: Option<&str>) -> bool {
        let reached = match row.spec.aim {
            Aim::Qube => qube.is_some_and(|qube| self.may_reach(qube)),
            Aim::Scope => self.may_reach_all() || row.spec.power != Power::Shape,
        };
        reached && self.may_use_row(row) && !self.revoked.is_cancelled()
    }

    fn may_use_row(&self, row: &Row) -> bool {
        let mut names = [&row.spec.tool, &row.spec.batch].into_iter().flatten();
        self.limits.tools.is_none() || names.any(|name| self.may_use(name))
    }

    /// Does this unless the caller's token is taken back meanwhile.
    pub(crate) async fn unless_revoked<T>(
        &self,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        tokio::select! {
            biased;
            () = self.revoked.cancelled() => Err(CallError::refused()),
            outcome = work => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn limited(tools: &[&str], qubes: &[&str]) -> Caller {
        let set = |names: &[&str]| {
            (!names.is_empty()).then(|| names.iter().copied().map(str::to_owned).collect())
        };
        Caller::new(None, Limits { tools: set(tools), qubes: set(qubes) })
    }

    fn may(caller: &Caller, tool: &str, qube: Option<&str>) -> bool {
        let tools = testing::tools();
        caller.may_call(tools.row(tool), qube)
    }

    #[test]
    fn without_limits_everything_is_left_to_dom0() {
        let caller = limited(&[], &[]);
        assert!(may(&caller, "list_vms", None));
        assert!(may(&caller, "exec_in_vm", Some("work")));
    }

    #[test]
    fn limits_are_by_tool_and_by_qube() {
        let caller = limited(&["exec_in_vm"], &["work"]);
        assert!(may(&caller, "exec_in_vm", Some("work")));
        assert!(!may(&caller, "exec_in_vm", Some("vault")));
        assert!(!may(&caller, "list_vms", None));
        assert!(may(&limited(&[], &["work"]), "list_vms", None), "its answer is narrowed");
    }

    #[test]
    fn one_whose_token_was_taken_back_may_call_nothing() {
        let caller = limited(&[], &[]);
        caller.revoked().cancel();
        assert!(!may(&caller, "list_vms", None));
    }

    #[tokio::test]
    async fn work_knows_for_whom_it_is_done() {
        assert!(Caller::current().is_none());
        let name = PrincipalName::parse("laptop").unwrap();
        let caller = Arc::new(Caller::new(Some(name.clone()), Limits::default()));
        let told = caller.scope(async { Caller::current() }).await;
        assert_eq!(told.and_then(|caller| caller.name().cloned()), Some(name));
    }
}
