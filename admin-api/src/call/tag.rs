//! Tags of qubes: `admin.vm.tag.*`.

use super::{Call, ReplyError, lines, nothing, text};
use crate::{Destination, Request, Tag};

/// The tags of a qube, sorted.
pub fn list(destination: Destination) -> Call<Vec<Tag>> {
    Call::new(Request::new("admin.vm.tag.List", destination), lines)
}

/// Whether a qube has this tag.
pub fn get(destination: Destination, tag: &Tag) -> Call<bool> {
    let request = Request::new("admin.vm.tag.Get", destination).argument(tag.as_str());
    Call::new(request, |content| match text(content)? {
        "1" => Ok(true),
        "0" => Ok(false),
        other => Err(ReplyError::value("0 or 1", other)),
    })
}

/// Adds a tag; one that is there already stays.
pub fn set(destination: Destination, tag: &Tag) -> Call<()> {
    Call::new(Request::new("admin.vm.tag.Set", destination).argument(tag.as_str()), nothing)
}

/// Removes a tag; one that is not there is an exception.
pub fn remove(destination: Destination, tag: &Tag) -> Call<()> {
    Call::new(Request::new("admin.vm.tag.Remove", destination).argument(tag.as_str()), nothing)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, work};
    use super::*;

    #[test]
    fn tags_are_listed_asked_for_set_and_removed() {
        let tag = Tag::parse("ai-managed").unwrap();
        assert_eq!(&sent(&list(work()))[..], b"admin.vm.tag.List+ dom0 name work\0");
        assert_eq!(&sent(&get(work(), &tag))[..], b"admin.vm.tag.Get+ai-managed dom0 name work\0");
        assert_eq!(&sent(&set(work(), &tag))[..], b"admin.vm.tag.Set+ai-managed dom0 name work\0");
        assert_eq!(
            &sent(&remove(work(), &tag))[..],
            b"admin.vm.tag.Remove+ai-managed dom0 name work\0"
        );
        assert_eq!(list(work()).answer(b"0\0ai-managed\n").unwrap(), std::slice::from_ref(&tag));
        assert_eq!(list(work()).answer(b"0\0").unwrap(), []);
        assert!(get(work(), &tag).answer(b"0\x001").unwrap());
        assert!(!get(work(), &tag).answer(b"0\x000").unwrap());
        assert!(get(work(), &tag).answer(b"0\0").is_err());
    }
}
