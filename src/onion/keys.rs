//! The x25519 keys by which tor lets clients reach a v3 onion service, in tor's own forms.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use rustix::io::Errno;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::principals::token::random_bytes;

/// What lets one client in. It is shown once, to be brought to the client.
#[derive(Clone)]
pub(crate) struct ClientKey(StaticSecret);

impl ClientKey {
    /// A new one.
    pub(crate) fn random() -> Result<Self, Errno> {
        Ok(Self(StaticSecret::from(random_bytes()?)))
    }

    /// The content of `authorized_clients/NAME.auth` beside the service (tor(1), CLIENT
    /// AUTHORIZATION).
    pub(crate) fn render_service(&self) -> String {
        format!("descriptor:x25519:{}\n", BASE32_NOPAD.encode(PublicKey::from(&self.0).as_bytes()))
    }

    /// The content of `NAME.auth_private` in the client's `ClientOnionAuthDir`. `address` is 56
    /// characters, without `.onion`.
    pub(crate) fn render_client(&self, address: &str) -> String {
        format!("{address}:descriptor:x25519:{}\n", BASE32_NOPAD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientKey")
    }
}

/// Reads an onion address from tor's `hostname` file, without `.onion`.
pub(crate) fn parse_hostname(content: &str) -> Option<&str> {
    let address = content.trim_ascii().strip_suffix(".onion")?;
    let inside = |c: char| c.is_ascii_lowercase() || matches!(c, '2'..='7');
    (address.len() == 56 && address.chars().all(inside)).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_tor_reads_them() {
        // RFC 7748, section 6.1: Alice's keys.
        let secret = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ];
        let key = ClientKey(StaticSecret::from(secret));
        assert_eq!(
            key.render_service(),
            "descriptor:x25519:QUQPACMJGCTVI5ELPXOLIPXXLIG36OQNEY4BV5HLUSUY5KU3JZVA\n"
        );
        let address = "a".repeat(56);
        let line = key.render_client(&address);
        assert!(
            line.starts_with(&format!("{address}:descriptor:x25519:O4DW2CTTDCSX2PAW")),
            "{line}"
        );
        assert_eq!(line.trim_end().len(), 56 + ":descriptor:x25519:".len() + 52);
        assert_eq!(format!("{key:?}"), "ClientKey");
    }

    #[test]
    fn an_address_is_56_characters_of_base32() {
        let good = format!("{}.onion\n", "a".repeat(56));
        assert_eq!(parse_hostname(&good), Some("a".repeat(56).as_str()));
        for bad in ["", "a.onion", &"a".repeat(56), &format!("{}.onion", "1".repeat(56))] {
            assert_eq!(parse_hostname(bad), None, "{bad}");
        }
    }
}
