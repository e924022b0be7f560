//! `salt-bridge-update.sh`: a script that holds the program and its digest.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::state::sha256;

const TEMPLATE: &str = include_str!("updater.sh");
/// As `base64` itself breaks lines.
const COLUMNS: usize = 76;

/// The script that installs this program.
pub(crate) fn render_updater(program: &[u8]) -> String {
    let mut script = TEMPLATE
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@SHA256@", &sha256(program));
    let encoded = STANDARD.encode(program);
    for line in encoded.as_bytes().chunks(COLUMNS) {
        script.extend(line.iter().copied().map(char::from));
        script.push('\n');
    }
    script
}
