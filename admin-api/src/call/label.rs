//! Labels (colours): `admin.label.*`.

use super::{Call, ReplyError, lines, number, text};
use crate::{Destination, LabelName, Request};

/// The names of all labels, in the order of their indices.
pub fn list() -> Call<Vec<LabelName>> {
    Call::new(Request::new("admin.label.List", Destination::Dom0), lines)
}

/// The colour of a label as 0xRRGGBB.
pub fn get(name: &LabelName) -> Call<u32> {
    let request = Request::new("admin.label.Get", Destination::Dom0).argument(name.as_str());
    Call::new(request, |content| {
        let text = text(content)?;
        let colour = text.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        colour.ok_or_else(|| ReplyError::value("a colour", text))
    })
}

/// The index of a label.
pub fn index(name: &LabelName) -> Call<u32> {
    let request = Request::new("admin.label.Index", Destination::Dom0).argument(name.as_str());
    Call::new(request, |content| number("a number", text(content)?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::sent;
    use super::*;

    #[test]
    fn a_label_has_a_colour_and_an_index() {
        let name = LabelName::parse("red").unwrap();
        assert_eq!(&sent(&list())[..], b"admin.label.List+ dom0 name dom0\0");
        assert_eq!(&sent(&get(&name))[..], b"admin.label.Get+red dom0 name dom0\0");
        assert_eq!(&sent(&index(&name))[..], b"admin.label.Index+red dom0 name dom0\0");
        assert_eq!(list().answer(b"0\0red\n").unwrap(), std::slice::from_ref(&name));
        assert_eq!(get(&name).answer(b"0\x000xcc0000").unwrap(), 0x00cc_0000);
        assert_eq!(index(&name).answer(b"0\x001").unwrap(), 1);
        assert!(get(&name).answer(b"0\0red").is_err());
    }
}
