//! New qubes: `admin.vm.Create.*`, `admin.vm.CreateInPool.*`, `admin.vm.CreateDisposable`.
//!
//! The source of these calls matters: qubesd tags what is made with `created-by-SOURCE`.

use std::fmt::Write as _;

use super::vm::Class;
use super::{Call, ReplyError, nothing, text};
use crate::{Destination, LabelName, PoolName, QubeName, Request, Uuid, VolumeName};

/// In which pools the volumes of a new qube lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pools {
    /// In the pools that the system has for each kind of volume.
    #[default]
    Default,
    /// All in one.
    All(PoolName),
    /// These volumes in these pools, the others in the default ones.
    Each(Vec<(VolumeName, PoolName)>),
}

/// Makes a qube. `template` is a TemplateVM for an AppVM (none is the system's default) and a
/// template for disposables for a DispVM; StandaloneVM and TemplateVM have none.
pub fn create(
    class: &Class,
    template: Option<&QubeName>,
    name: &QubeName,
    label: &LabelName,
    pools: &Pools,
) -> Call<()> {
    let mut payload = format!("name={name} label={label}");
    // Writing to a String cannot fail.
    let _written = match pools {
        Pools::Default => Ok(()),
        Pools::All(pool) => write!(payload, " pool={pool}"),
        Pools::Each(pools) => {
            pools.iter().try_for_each(|(volume, pool)| write!(payload, " pool:{volume}={pool}"))
        }
    };
    let method = match pools {
        Pools::Default => format!("admin.vm.Create.{class}"),
        Pools::All(_) | Pools::Each(_) => format!("admin.vm.CreateInPool.{class}"),
    };
    let template = template.map(QubeName::as_str).unwrap_or_default();
    let request = Request::new(method, Destination::Dom0).argument(template);
    Call::new(request.payload(payload), nothing)
}

/// Makes a disposable from a template for disposables (from the system's default when aimed at
/// dom0) and gives its name. It is not started, and it vanishes when it has run.
pub fn disposable(template: Destination) -> Call<QubeName> {
    Call::new(Request::new("admin.vm.CreateDisposable", template), |content| {
        Ok(QubeName::parse(text(content)?)?)
    })
}

/// Makes a disposable and gives its UUID. New in R4.3.
pub fn disposable_by_uuid(template: Destination) -> Call<Uuid> {
    let request = Request::new("admin.vm.CreateDisposable", template).payload("uuid");
    Call::new(request, |content| {
        let text = text(content)?;
        let uuid =
            text.strip_prefix("uuid:").ok_or_else(|| ReplyError::value("uuid:UUID", text))?;
        Ok(Uuid::parse(uuid)?)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, work};
    use super::*;
    use crate::Source;

    #[test]
    fn a_new_qube_has_a_name_a_label_and_perhaps_a_template() {
        let (name, label) = (QubeName::parse("ai-new").unwrap(), LabelName::parse("red").unwrap());
        let template = QubeName::parse("fedora-42").unwrap();
        let call = create(&Class::AppVm, Some(&template), &name, &label, &Pools::Default)
            .source(Source::parse("salt-bridge").unwrap());
        assert_eq!(
            &sent(&call)[..],
            b"admin.vm.Create.AppVM+fedora-42 salt-bridge name dom0\0name=ai-new label=red"
        );
        let call = create(&Class::StandaloneVm, None, &name, &label, &Pools::Default);
        assert_eq!(
            &sent(&call)[..],
            b"admin.vm.Create.StandaloneVM+ dom0 name dom0\0name=ai-new label=red"
        );
    }

    #[test]
    fn a_new_qube_can_lie_in_pools_of_ones_choice() {
        let (name, label) = (QubeName::parse("n").unwrap(), LabelName::parse("red").unwrap());
        let (volume, pool) = (VolumeName::parse("private").unwrap(), PoolName::parse("p").unwrap());
        for (pools, end) in [
            (Pools::All(pool.clone()), "pool=p"),
            (Pools::Each(vec![(volume, pool)]), "pool:private=p"),
        ] {
            let bytes = sent(&create(&Class::TemplateVm, None, &name, &label, &pools));
            assert_eq!(
                bytes,
                format!("admin.vm.CreateInPool.TemplateVM+ dom0 name dom0\0name=n label=red {end}")
            );
        }
    }

    #[test]
    fn a_disposable_is_told_by_name_or_by_uuid() {
        let call = disposable(work());
        assert_eq!(&sent(&call)[..], b"admin.vm.CreateDisposable+ dom0 name work\0");
        assert_eq!(call.answer(b"0\0disp7633").unwrap().as_str(), "disp7633");
        let call = disposable_by_uuid(work());
        assert_eq!(&sent(&call)[..], b"admin.vm.CreateDisposable+ dom0 name work\0uuid");
        let uuid = call.answer(b"0\0uuid:437ce28e-e6f4-4f37-a766-fc88973bee0f").unwrap();
        assert_eq!(uuid.as_str(), "437ce28e-e6f4-4f37-a766-fc88973bee0f");
        assert!(call.answer(b"0\0disp7633").is_err());
    }
}
