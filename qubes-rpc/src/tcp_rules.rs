//! `qubes.ConnectTCP` rules as the daemon handles them: it decides, the helper writes.

use std::{fs, io, time::SystemTime};

use admin_api::{Destination, EventStream, QubeName};
use contract::{Fault, Power, limits};
use policy::{Caller, Claim, ManagedQube, Refused, TcpRule, TcpRules};
use tokio::time::sleep;

use crate::{
    error::{Error, chain},
    handle::Writer,
    host::Host,
    journal,
    tcp_policy::{Change, HelperError, ask_helper},
    view::View,
};

impl Writer<'_> {
    /// The rules of which both ends are in the caller's scope.
    pub(crate) async fn tcp_rules(self, view: &View) -> Result<Vec<TcpRule>, Error> {
        let Ok(caller) = view.caller() else { return Ok(Vec::new()) };
        let mut shown = Vec::new();
        for rule in self.host.read_tcp_rules()?.rules() {
            if self.host.net_pair(&caller, rule, view.now()).await?.is_ok() {
                shown.push(rule.clone());
            }
        }
        Ok(shown)
    }

    /// Adds a rule; false when it stood already.
    pub(crate) async fn add_tcp_rule(self, view: &View, rule: &TcpRule) -> Result<bool, Error> {
        let _ends = self.both_ends(view, rule).await?;
        if self.host.operator_denies(rule).await? {
            let message = "the operator's policy denies this connection or asks; only the operator can change that";
            return Err(Fault::bad_request(message).into());
        }
        let added = self.change_tcp_rules(Change::Add(rule)).await?;
        self.host.tcp_rules_due.notify_one();
        Ok(added)
    }

    /// Removes a rule; false when there was none.
    pub(crate) async fn remove_tcp_rule(self, view: &View, rule: &TcpRule) -> Result<bool, Error> {
        let _ends = self.both_ends(view, rule).await?;
        self.change_tcp_rules(Change::Remove(rule)).await
    }

    async fn both_ends(
        self,
        view: &View,
        rule: &TcpRule,
    ) -> Result<(ManagedQube, ManagedQube), Error> {
        if rule.source == rule.target {
            return Err(Fault::bad_request("source and target must be two qubes").into());
        }
        let caller = view.caller().map_err(|_| Fault::Refused {})?;
        Ok(self.host.net_pair(&caller, rule, view.now()).await?.map_err(|_| Fault::Refused {})?)
    }

    /// Removes the rules that name a qube which is gone, or which has just been made: they were for
    /// another one of its name.
    pub(crate) async fn forget_tcp_rules(self, name: &QubeName) -> Result<(), Error> {
        for rule in self.host.read_tcp_rules()?.rules() {
            if rule.source == *name || rule.target == *name {
                self.change_tcp_rules(Change::Remove(rule)).await?;
            }
        }
        Ok(())
    }

    async fn change_tcp_rules(self, change: Change<'_>) -> Result<bool, Error> {
        let socket = self.host.paths.tcp_policy_socket();
        match ask_helper(&socket, change).await {
            Ok(changed) => Ok(changed),
            Err(HelperError::Full) => {
                let most = limits::TCP_RULES_PER_AGENT;
                let message = format!("there may be at most {most} rules; remove one first");
                Err(Fault::TooLarge { message }.into())
            }
            Err(HelperError::Io(error)) => Err(Error::TcpPolicy(error)),
        }
    }
}

impl Host {
    /// Has the rules withdrawn whose grants end, as long as the daemon runs: at once when qubesd
    /// tells of a qube or a tag that goes, and by a look at each minute's end.
    pub(crate) async fn watch_tcp_rules(&self) {
        let mut events = None;
        loop {
            if self.has_tcp_rules() {
                // Before the look, so that nothing falls in between.
                if events.is_none() {
                    events = self.qubesd.events(Destination::Dom0, limits::QUBESD).await.ok();
                }
                self.prune_tcp_rules().await;
            } else {
                events = None;
            }
            tokio::select! {
                () = something_goes(&mut events) => {}
                () = self.tcp_rules_due.notified() => {}
                () = sleep(limits::TCP_LOOK) => {}
            }
        }
    }

    /// Whether there are rules that may have to be withdrawn.
    pub(crate) fn has_tcp_rules(&self) -> bool {
        self.read_tcp_rules().is_ok_and(|rules| !rules.rules().is_empty())
    }

    async fn prune_tcp_rules(&self) {
        match ask_helper(&self.paths.tcp_policy_socket(), Change::Prune).await {
            Ok(_) => {}
            Err(error) => journal::say(&format!(
                "qubes.ConnectTCP rules cannot be looked at: {}",
                chain(&error)
            )),
        }
    }

    /// The rules in force by our policy file; none where there is no file.
    pub(crate) fn read_tcp_rules(&self) -> Result<TcpRules, Error> {
        let text = match fs::read_to_string(self.paths.tcp_policy()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::File(error)),
        };
        TcpRules::parse(&text).map_err(|error| Error::File(io::Error::other(error)))
    }

    /// Authority over both ends of a rule, from the operator's file and from what qubesd says now.
    pub(crate) async fn net_pair(
        &self,
        caller: &Caller<'_>,
        rule: &TcpRule,
        now: SystemTime,
    ) -> Result<Result<(ManagedQube, ManagedQube), Refused>, admin_api::Error> {
        let (source, target) = match caller.pair(&rule.source, &rule.target, Power::Net, now) {
            Ok(claims) => claims,
            Err(refused) => return Ok(Err(refused)),
        };
        let source = match self.manage(source).await? {
            Ok(qube) => qube,
            Err(refused) => return Ok(Err(refused)),
        };
        Ok(self.manage(target).await?.map(|target| (source, target)))
    }

    /// Turns a claim into authority over a qube that there is.
    pub(crate) async fn manage(
        &self,
        claim: Claim,
    ) -> Result<Result<ManagedQube, Refused>, admin_api::Error> {
        let with_tags = !claim.wanted_tags().is_empty();
        Ok(match self.find(&claim.target().clone(), with_tags).await? {
            Some(found) => claim.manage(found.live),
            None => Err(claim.no_such_qube()),
        })
    }
}

/// Waits until qubesd tells that a qube or a tag of one is gone. Where it tells nothing any more,
/// that never comes.
async fn something_goes(events: &mut Option<EventStream>) {
    while let Some(stream) = events {
        match stream.next().await {
            Ok(Some(event))
                if event.name == "domain-delete"
                    || event.name.starts_with("domain-tag-delete:") =>
            {
                return;
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => *events = None,
        }
    }
    std::future::pending::<()>().await;
}
