//! Changes of a qube's firewall: one at a time, the rules before kept, the rules after verified.

use std::{fs, io};

use admin_api::{
    Destination, QubeName, call,
    firewall::{Rule, default_rules},
    firewall_xml,
};
use contract::{Fault, limits};
use policy::ManagedQube;

use crate::{
    error::Error,
    firewall_history::History,
    handle::{Handle, Writer},
    host::{Host, destination},
    service::Effect,
    times::seconds_since_1970,
};

impl Writer<'_> {
    /// Reads the rules, lets `change` edit them, stores them, and reads what is in force then.
    ///
    /// qubesd replaces all rules at once and has no token against lost updates. Our own changes
    /// wait for one another; somebody else's shows as a difference when the rules are read again.
    pub(crate) async fn change_rules<T>(
        self,
        qube: &ManagedQube,
        change: impl FnOnce(&mut Vec<Rule>) -> Result<T, Fault>,
    ) -> Result<(T, Vec<Rule>), Error> {
        let _one_at_a_time = self.host.firewall.lock().await;
        let before = self.rules(qube).await?;
        let mut wanted = before.clone();
        let told = change(&mut wanted)?;
        self.host.keep_rules(qube.name(), &before, &self.call.id).await?;
        let set = call::firewall::set(destination(qube), &wanted);
        match self.host.qubesd.call(set, limits::QUBESD).await {
            Ok(()) => {}
            Err(admin_api::Error::Exception(exception)) => {
                let message = format!("qubesd rejects the rules: {}", exception.message);
                return Err(Fault::bad_request(message).into());
            }
            Err(admin_api::Error::Empty) => {
                let message = "qubesd rejects the rules and does not say why";
                return Err(Fault::bad_request(message).into());
            }
            Err(admin_api::Error::Request(_)) => {
                let message = "with this rule qubesd's limit of 64 KiB is exceeded".into();
                return Err(Fault::TooLarge { message }.into());
            }
            Err(error) => return Err(error.into()),
        }
        let after = self.rules(qube).await?;
        if !in_force(&wanted).eq(in_force(&after)) {
            return Err(Error::Stored(
                "the firewall is not as asked: somebody else changed it meanwhile; list it again",
            ));
        }
        if self.drifts(qube, &after)? {
            return Err(Error::Stored("firewall.xml is not what qubesd says is in force"));
        }
        Ok((told, after))
    }
}

impl<E: Effect> Handle<'_, E> {
    /// Whether `firewall.xml` holds other rules than qubesd says are in force.
    pub(crate) fn drifts(self, qube: &ManagedQube, rules: &[Rule]) -> Result<bool, Error> {
        let stored = self.host.stored_rules(qube)?;
        Ok(!in_force(&stored).eq(in_force(rules)))
    }
}

/// The rules that have not expired, as qubesd writes them.
pub(crate) fn in_force(rules: &[Rule]) -> impl Iterator<Item = String> {
    let now = seconds_since_1970();
    let lives = move |rule: &&Rule| rule.expire.is_none_or(|expire| expire > now);
    rules.iter().filter(lives).map(Rule::render_line)
}

impl Host {
    /// Keeps a rule set as the `firewall.xml` that it was, under the time and the call's number.
    /// Where room is short, the rule sets of qubes that are gone go first.
    pub(crate) async fn keep_rules(
        &self,
        qube: &QubeName,
        rules: &[Rule],
        call: &str,
    ) -> Result<(), Error> {
        let mut history = History::read(&self.paths).map_err(Error::File)?;
        let name = format!("{:012}-{call}.xml", seconds_since_1970());
        let xml = firewall_xml::render(rules).map_err(io::Error::other).map_err(Error::File)?;
        if !history.has_room(xml.len()) {
            let all = call::vm::list(Destination::Dom0);
            let listed = self.qubesd.call(all, limits::QUBESD).await?;
            let names = listed.into_iter().map(|line| line.name).collect();
            history.forget_others(&names).map_err(Error::File)?;
        }
        history.keep(qube.as_str(), &name, xml.as_bytes()).map_err(Error::File)
    }

    /// The rules in `firewall.xml`; where there is none, the one that accepts everything.
    fn stored_rules(&self, qube: &ManagedQube) -> Result<Vec<Rule>, Error> {
        for path in self.paths.firewall_xml(qube.name().as_str()) {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::File(error)),
            };
            return firewall_xml::parse(&text)
                .map_err(|error| Error::File(io::Error::other(error)));
        }
        Ok(default_rules())
    }
}
