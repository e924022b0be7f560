//! The state of the network.

use super::*;
use crate::run::PartName;

#[test]
fn every_part_comes_in_order_and_missing_tools_leave_theirs_empty() {
    block_on(async {
        let qube = Qube::new();
        let never = CancellationToken::new();
        let parts = qube.runner().network_state(place(30.0), &never).await.unwrap();
        let names: Vec<_> = parts.iter().map(|part| part.name).collect();
        assert_eq!(names, PartName::ALL);
        for part in &parts {
            assert!(!part.text.contains('\u{1e}') && !part.text.contains("not found"), "{part:?}");
        }
        let dns = parts.iter().find(|part| part.name == PartName::Dns).unwrap();
        assert_eq!(dns.text, fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    });
}
