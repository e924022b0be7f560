//! `set_vm_feature`.

use admin_api::FeatureName;
use contract::{Fault, Power, limits};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    service::{Change, Service},
    services::property_set::Given,
};

/// The service.
#[derive(Debug)]
pub struct FeatureSet;

/// What to set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The feature: a name of your own that begins with `x-` or `ai-`, or audiovm or guivm.
    pub feature: String,
    /// Its new value: printable ASCII; true is "1", false is the empty text, null removes it.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = serde_json::json!({"feature": NAMES_A_QUBE}))))]
    pub value: Given,
}

/// The feature as Qubes has it now.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The feature.
    pub feature: String,
    /// Its value as Qubes has it now; null when the qube has no such feature.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "text")))]
    pub value: Option<String>,
    /// False when it had that value already.
    pub changed: bool,
}

/// Features whose value is the name of a qube.
const NAMES_A_QUBE: [&str; 2] = ["audiovm", "guivm"];
/// With what the names begin that nobody but the agent gives a meaning to.
const OWN: [&str; 2] = ["x-", "ai-"];

/// A feature that an agent may set: one that dom0, the GUI and the qubes' own scripts give no
/// meaning to.
///
/// A list of what is allowed, not of what is forbidden, because features are Qubes' way to add
/// meaning without a new property, and every release adds some: `internal` hides a qube,
/// `tag-created-vm-with` hands out tags, `deferred-netvm-original` and `net.*` move a qube to
/// another network, `boot-mode.*` goes to the kernel's command line, `preload-dispvm*` starts
/// qubes, `gui-*` loosens what dom0 draws, `custom-persist.*` and `service.*` act as root in the
/// qube, which would be the power root for one that lacks it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Feature {
    /// One of the agent's own.
    Own(FeatureName),
    /// One that names a qube.
    Qube(FeatureName),
}

/// Whether a feature is one that an agent may set, and so may hear of.
pub(crate) fn is_an_agents(name: &str) -> bool {
    Feature::parse(name).is_ok()
}

impl Feature {
    fn parse(text: &str) -> Result<Self, Fault> {
        let name = FeatureName::parse(text)
            .map_err(|_| Fault::bad_request("feature must be the name of a feature"))?;
        if text.len() > limits::FEATURE_NAME_BYTES {
            let most = limits::FEATURE_NAME_BYTES;
            let message = format!("the name of a feature may have at most {most} characters");
            return Err(Fault::TooLarge { message });
        }
        if NAMES_A_QUBE.contains(&text) {
            return Ok(Self::Qube(name));
        }
        if OWN.iter().any(|own| text.strip_prefix(own).is_some_and(|rest| !rest.is_empty())) {
            return Ok(Self::Own(name));
        }
        let message = format!(
            "feature {text} is the operator's; an agent sets features that begin with x- or ai-, \
             audiovm and guivm"
        );
        Err(Fault::bad_request(message))
    }

    const fn name(&self) -> &FeatureName {
        match self {
            Self::Own(name) | Self::Qube(name) => name,
        }
    }
}

/// The value as qubesd writes it; nothing when the feature is to be removed.
fn plain_value(given: &Given) -> Result<Option<String>, Fault> {
    let text = match given {
        Given::Nothing => return Ok(None),
        Given::Flag(true) => "1".to_owned(),
        Given::Flag(false) => String::new(),
        Given::Number(number) => number.to_string(),
        Given::Text(text) => text.clone(),
    };
    if text.len() > limits::FEATURE_BYTES {
        let most = limits::FEATURE_BYTES;
        let message = format!("the value of a feature may have at most {most} characters");
        return Err(Fault::TooLarge { message });
    }
    if !text.chars().all(|found| found.is_ascii_graphic() || found == ' ') {
        return Err(Fault::bad_request("value must be printable ASCII"));
    }
    Ok(Some(text))
}

impl Service for FeatureSet {
    const NAME: &str = "FeatureSet";
    const TOOL: Option<&str> = Some("set_vm_feature");
    const TITLE: &str = "Set a feature of a qube";
    const SUMMARY: &str = "Set or remove a feature of a qube (virtual machine): a note for yourself under a name that begins with x- or ai-, or audiovm and guivm with a qube of your scope. Every other feature means something to Qubes and is the operator's.";
    const POWER: Power = Power::Shape;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _: &Host) -> Result<(), Fault> {
        Feature::parse(&request.feature)?;
        plain_value(&request.value).map(|_| ())
    }

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        let feature = Feature::parse(&request.feature)?;
        let value = plain_value(&request.value)?;
        if let (Feature::Qube(_), Some(named)) = (&feature, &value)
            && !named.is_empty()
        {
            drop(host.host.named_in_text(qube.agent(), named, Power::See).await?);
        }
        let name = feature.name();
        let before = host.feature(&qube, name).await?;
        if before.is_none() && value.is_some() {
            let most = limits::FEATURES;
            if host.features(&qube).await?.len() >= most {
                let message = format!("a qube may have at most {most} features");
                return Err(Fault::TooLarge { message }.into());
            }
        }
        host.set_feature(&qube, name, value.as_deref()).await?;
        let after = host.feature(&qube, name).await?;
        if after != value {
            return Err(Error::Stored("Qubes keeps another value than the one that was set"));
        }
        Ok(Response { feature: request.feature, changed: before != after, value: after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_mean_nothing_to_qubes_are_an_agents_to_set() {
        for own in ["x-test", "ai-test-marker", "audiovm", "guivm"] {
            assert!(Feature::parse(own).is_ok(), "{own}");
        }
        for theirs in [
            "internal",
            "tag-created-vm-with",
            "set-created-guivm",
            "preload-dispvm-max",
            "preload-dispvm",
            "qubes-firewall",
            "service.clocksync",
            "deferred-netvm-original",
            "net.fake-ip",
            "boot-mode.active",
            "gui-allow-fullscreen",
            "custom-persist.x",
            "vm-config.x",
            "vmexec",
            "qrexec",
            "prohibit-start",
            "servicevm",
            "os",
            "X-test",
            "x-",
            "ai-",
            "x",
            "x-a b",
            "x-a+b",
            "",
        ] {
            assert!(Feature::parse(theirs).is_err(), "{theirs}");
        }
    }

    #[test]
    fn a_value_is_printable_and_a_truth_is_written_as_qubes_does() {
        let text = |text: &str| plain_value(&Given::Text(text.into()));
        assert_eq!(plain_value(&Given::Nothing), Ok(None));
        assert_eq!(plain_value(&Given::Flag(true)), Ok(Some("1".into())));
        assert_eq!(plain_value(&Given::Flag(false)), Ok(Some(String::new())));
        assert_eq!(plain_value(&Given::Number(-3)), Ok(Some("-3".into())));
        assert_eq!(text("a b"), Ok(Some("a b".into())));
        for bad in ["a\nb", "a\0b", "caf\u{e9}", "\u{7f}", "\t", &"x".repeat(1025)] {
            assert!(text(bad).is_err(), "{bad:?}");
        }
    }
}
