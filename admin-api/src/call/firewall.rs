//! Firewall rules of a qube: `admin.vm.firewall.*`.

use super::{Call, ReplyError, nothing, text};
use crate::firewall::{Rule, parse_rules, render_rules};
use crate::{Destination, Request};

/// The rules that count now, in their order; a packet that none matches is dropped.
pub fn get(destination: Destination) -> Call<Vec<Rule>> {
    Call::new(Request::new("admin.vm.firewall.Get", destination), |content| {
        let text = text(content)?;
        parse_rules(text).map_err(|_| ReplyError::value("firewall rules", text))
    })
}

/// Replaces all rules at once. qubesd has no token that tells of changes by others, and it refuses
/// an empty list.
pub fn set(destination: Destination, rules: &[Rule]) -> Call<()> {
    let request = Request::new("admin.vm.firewall.Set", destination);
    Call::new(request.payload(render_rules(rules)), nothing)
}

/// Has the rules applied again, so that names are resolved anew.
pub fn reload(destination: Destination) -> Call<()> {
    Call::new(Request::new("admin.vm.firewall.Reload", destination), nothing)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, work};
    use super::*;

    #[test]
    fn rules_are_read_replaced_and_reloaded() {
        assert_eq!(&sent(&get(work()))[..], b"admin.vm.firewall.Get+ dom0 name work\0");
        let text = "action=accept dst4=10.0.0.1/32 proto=tcp dstports=443-443\naction=drop\n";
        let rules = get(work()).answer(format!("0\0{text}").as_bytes()).unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(
            sent(&set(work(), &rules)),
            format!("admin.vm.firewall.Set+ dom0 name work\0{text}")
        );
        assert_eq!(&sent(&reload(work()))[..], b"admin.vm.firewall.Reload+ dom0 name work\0");
        assert!(get(work()).answer(b"0\0action=forward\n").is_err());
    }
}
