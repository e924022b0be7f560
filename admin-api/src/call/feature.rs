//! Features of qubes: `admin.vm.feature.*`.

use super::{Call, lines, nothing, owned_text};
use crate::{Destination, FeatureName, Request};

/// Where else a feature is looked for when the qube itself has it not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// At its template.
    Template,
    /// At its netvm.
    Netvm,
    /// At dom0.
    AdminVm,
    /// At its template, then at dom0.
    TemplateAndAdminVm,
}

impl Fallback {
    /// Every fallback.
    pub const ALL: [Self; 4] =
        [Self::Template, Self::Netvm, Self::AdminVm, Self::TemplateAndAdminVm];

    const fn method(self) -> &'static str {
        match self {
            Self::Template => "admin.vm.feature.CheckWithTemplate",
            Self::Netvm => "admin.vm.feature.CheckWithNetvm",
            Self::AdminVm => "admin.vm.feature.CheckWithAdminVM",
            Self::TemplateAndAdminVm => "admin.vm.feature.CheckWithTemplateAndAdminVM",
        }
    }
}

fn request(method: &'static str, destination: Destination, name: &FeatureName) -> Request {
    Request::new(method, destination).argument(name.as_str())
}

/// The names of the features that a qube itself has.
pub fn list(destination: Destination) -> Call<Vec<FeatureName>> {
    Call::new(Request::new("admin.vm.feature.List", destination), lines)
}

/// A feature's value; empty is false. A missing one is `QubesFeatureNotFoundError`.
pub fn get(destination: Destination, name: &FeatureName) -> Call<String> {
    Call::new(request("admin.vm.feature.Get", destination, name), owned_text)
}

/// A feature's value, looked for elsewhere too.
pub fn get_with(destination: Destination, name: &FeatureName, fallback: Fallback) -> Call<String> {
    Call::new(request(fallback.method(), destination, name), owned_text)
}

/// Sets a feature; empty is false.
pub fn set(destination: Destination, name: &FeatureName, value: &str) -> Call<()> {
    let request = request("admin.vm.feature.Set", destination, name);
    Call::new(request.payload(value.to_owned()), nothing)
}

/// Removes a feature; one that is not there is `QubesFeatureNotFoundError`.
pub fn remove(destination: Destination, name: &FeatureName) -> Call<()> {
    Call::new(request("admin.vm.feature.Remove", destination, name), nothing)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, work};
    use super::*;

    #[test]
    fn features_are_listed_read_set_and_removed() {
        let name = FeatureName::parse("service.foo").unwrap();
        for (bytes, expected) in [
            (sent(&list(work())), "List+ dom0 name work\0"),
            (sent(&get(work(), &name)), "Get+service.foo dom0 name work\0"),
            (sent(&set(work(), &name, "a b")), "Set+service.foo dom0 name work\0a b"),
            (sent(&remove(work(), &name)), "Remove+service.foo dom0 name work\0"),
        ] {
            assert_eq!(bytes, format!("admin.vm.feature.{expected}"));
        }
        assert_eq!(list(work()).answer(b"0\0service.foo\n").unwrap(), std::slice::from_ref(&name));
        assert_eq!(get(work(), &name).answer(b"0\0").unwrap(), "");
    }

    #[test]
    fn a_feature_can_be_looked_for_elsewhere() {
        let name = FeatureName::parse("qrexec").unwrap();
        let methods = ["Template", "Netvm", "AdminVM", "TemplateAndAdminVM"];
        for (fallback, method) in Fallback::ALL.into_iter().zip(methods) {
            let call = get_with(work(), &name, fallback);
            assert_eq!(
                sent(&call),
                format!("admin.vm.feature.CheckWith{method}+qrexec dom0 name work\0")
            );
            assert_eq!(call.answer(b"0\x001").unwrap(), "1");
        }
    }
}
