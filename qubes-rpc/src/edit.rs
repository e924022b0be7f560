//! Exact replacements in a file's bytes: all of them, or none.

use std::ops::Range;

use memchr::{memchr_iter, memmem, memrchr};

/// The lines around a change that an excerpt shows.
const CONTEXT: usize = 2;
/// The most lines of one side of a change that an excerpt shows.
const SIDE: usize = 20;
/// The most characters of a line that an excerpt shows.
const LINE_CHARS: usize = 200;
/// The longest excerpt, in bytes and but for its last change.
const EXCERPT_BYTES: usize = 4000;
/// The most numbers of lines that a refusal names.
const TOLD_LINES: usize = 10;

/// A text that is to stand instead of another, wherever that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    /// What stands there, never empty.
    pub(crate) old: Vec<u8>,
    /// What is to stand there.
    pub(crate) new: Vec<u8>,
    /// How often `old` stands there; not overlapping, found from the beginning on.
    pub(crate) expected: u64,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    /// The text is not there as often as expected.
    #[error("edit {}: old stands {actual} times, not {expected}{}", index + 1, on_lines(lines, *actual))]
    Count {
        /// Which edit, counted from 0.
        index: usize,
        /// How often it was to be there.
        expected: u64,
        /// How often it is there, as the edits before this one leave the text.
        actual: u64,
        /// The lines, counted from 1, on which it begins; the first of them.
        lines: Vec<usize>,
    },
    /// The text would become longer than it may.
    #[error("edit {}: the file would have more than {limit} bytes", index + 1)]
    TooLong {
        /// Which edit, counted from 0.
        index: usize,
        /// The limit, in bytes.
        limit: usize,
    },
}

fn on_lines(lines: &[usize], actual: u64) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let more =
        if u64::try_from(lines.len()).is_ok_and(|told| told < actual) { ", ..." } else { "" };
    let lines: Vec<_> = lines.iter().map(usize::to_string).collect();
    format!(", on lines {}{more}", lines.join(", "))
}

/// A text after all edits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    /// The text.
    pub(crate) content: Vec<u8>,
    /// How many places were changed.
    pub(crate) replacements: u64,
    /// What was changed, line by line, as far as it is short.
    pub(crate) excerpt: String,
}

/// Makes the edits one after the other, each on what the one before left.
pub(crate) fn edit(
    mut content: Vec<u8>,
    edits: &[Edit],
    limit: usize,
) -> Result<Edited, EditError> {
    let (mut replacements, mut excerpt, mut untold) = (0, String::new(), 0_u64);
    for (index, edit) in edits.iter().enumerate() {
        // Not collected: there may be as many places as bytes.
        let places = || memmem::find_iter(&content, &edit.old);
        let count = places().count();
        let actual = u64::try_from(count).unwrap_or(u64::MAX);
        if actual != edit.expected {
            let lines = numbers(&content, places().take(TOLD_LINES));
            return Err(EditError::Count { index, expected: edit.expected, actual, lines });
        }
        let added = edit.new.len().saturating_sub(edit.old.len()).saturating_mul(count);
        if content.len().saturating_add(added) > limit {
            return Err(EditError::TooLong { index, limit });
        }
        for place in places() {
            if excerpt.len() < EXCERPT_BYTES {
                show(&mut excerpt, &content, place..place + edit.old.len(), &edit.new);
            } else {
                untold += 1;
            }
        }
        content = replace(&content, edit);
        replacements += actual;
    }
    if untold > 0 {
        excerpt.push_str(&format!("[... {untold} more changes ...]\n"));
    }
    Ok(Edited { content, replacements, excerpt })
}

fn replace(content: &[u8], edit: &Edit) -> Vec<u8> {
    let (mut result, mut from) = (Vec::new(), 0);
    for place in memmem::find_iter(content, &edit.old) {
        result.extend_from_slice(content.get(from..place).unwrap_or_default());
        result.extend_from_slice(&edit.new);
        from = place + edit.old.len();
    }
    result.extend_from_slice(content.get(from..).unwrap_or_default());
    result
}

/// The lines, counted from 1, on which these places are; the places are in order.
fn numbers(content: &[u8], places: impl Iterator<Item = usize>) -> Vec<usize> {
    let (mut line, mut from) = (1, 0);
    let mut lines: Vec<usize> = places
        .map(|place| {
            line += memchr_iter(b'\n', content.get(from..place).unwrap_or_default()).count();
            from = place;
            line
        })
        .collect();
    lines.dedup();
    lines
}

/// Adds one change: the lines before it, the lines that go, the lines that come, the lines behind it.
fn show(excerpt: &mut String, content: &[u8], changed: Range<usize>, new: &[u8]) {
    let before = content.get(..changed.start).unwrap_or_default();
    let behind = content.get(changed.end..).unwrap_or_default();
    let start = memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    // An old text that ends with its line takes no part of the next.
    let whole_lines = content.get(changed.clone()).is_some_and(|old| old.ends_with(b"\n"))
        && (new.is_empty() || new.ends_with(b"\n"));
    let rest = match whole_lines {
        true => 0,
        false => memchr::memchr(b'\n', behind).map_or(behind.len(), |newline| newline + 1),
    };
    let (head, tail) = (content.get(start..changed.start), behind.get(..rest));
    let (head, tail) = (head.unwrap_or_default(), tail.unwrap_or_default());
    let gone = content.get(start..changed.end + rest).unwrap_or_default();
    let come = [head, new, tail].concat();
    let number = memchr_iter(b'\n', content.get(..start).unwrap_or_default()).count() + 1;
    excerpt.push_str(&format!("@@ line {number} @@\n"));
    let above: Vec<_> =
        lines(content.get(..start).unwrap_or_default()).rev().take(CONTEXT).collect();
    above.into_iter().rev().for_each(|line| push(excerpt, ' ', line));
    side(excerpt, '-', gone);
    side(excerpt, '+', &come);
    lines(behind.get(rest..).unwrap_or_default())
        .take(CONTEXT)
        .for_each(|line| push(excerpt, ' ', line));
}

fn side(excerpt: &mut String, sign: char, text: &[u8]) {
    lines(text).take(SIDE).for_each(|line| push(excerpt, sign, line));
    let more = lines(text).skip(SIDE).count();
    if more > 0 {
        excerpt.push_str(&format!("{sign}[... {more} more lines ...]\n"));
    }
}

fn push(excerpt: &mut String, sign: char, line: &[u8]) {
    // Of a line without end only a beginning is decoded.
    let begin = line.get(..4 * LINE_CHARS).unwrap_or(line);
    let text = String::from_utf8_lossy(begin);
    excerpt.push(sign);
    excerpt.extend(text.chars().take(LINE_CHARS));
    if begin.len() < line.len() || text.chars().count() > LINE_CHARS {
        excerpt.push_str(" [...]");
    }
    excerpt.push('\n');
}

/// The lines of a text without their newlines.
fn lines(text: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    let none = text.is_empty();
    whole.split(|byte| *byte == b'\n').filter(move |_| !none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(old: &str, new: &str, expected: u64) -> Edit {
        Edit { old: old.into(), new: new.into(), expected }
    }

    #[test]
    fn edits_are_made_in_order_and_told_line_by_line() {
        let content = b"one\ntwo\nthree\nfour\nfive\n".to_vec();
        let edits = [change("three", "3\nthree and a half", 1), change("half\nfour", "half\n4", 1)];
        let edited = edit(content, &edits, 1000).unwrap();
        assert_eq!(edited.content, b"one\ntwo\n3\nthree and a half\n4\nfive\n");
        assert_eq!(edited.replacements, 2);
        let expected = "\
@@ line 3 @@\n one\n two\n-three\n+3\n+three and a half\n four\n five\n\
@@ line 4 @@\n two\n 3\n-three and a half\n-four\n+three and a half\n+4\n five\n";
        assert_eq!(edited.excerpt, expected);
    }

    #[test]
    fn a_text_that_stands_there_more_or_less_often_is_not_touched() {
        let content = b"a\nb a\na\n".to_vec();
        let error = edit(content.clone(), &[change("b", "c", 1), change("a", "x", 1)], 100);
        let error = error.unwrap_err();
        assert_eq!(error.to_string(), "edit 2: old stands 3 times, not 1, on lines 1, 2, 3");
        let none = edit(content.clone(), &[change("z", "x", 1)], 100).unwrap_err();
        assert_eq!(none.to_string(), "edit 1: old stands 0 times, not 1");
        let thrice = edit(content, &[change("a", "xx", 3)], 100).unwrap();
        assert_eq!((&thrice.content[..], thrice.replacements), (&b"xx\nb xx\nxx\n"[..], 3));
        let many = edit(vec![b'a'; 99], &[change("a", "", 1)], 100).unwrap_err();
        assert_eq!(many.to_string(), "edit 1: old stands 99 times, not 1, on lines 1, ...");
    }

    #[test]
    fn a_text_does_not_outgrow_its_limit() {
        let error = edit(b"aaaa".to_vec(), &[change("a", "bbb", 4)], 11).unwrap_err();
        assert_eq!(error, EditError::TooLong { index: 0, limit: 11 });
        assert!(edit(b"aaaa".to_vec(), &[change("a", "bbb", 4)], 12).is_ok());
    }

    #[test]
    fn bytes_that_are_no_text_stay_and_long_lines_are_cut_in_the_excerpt() {
        let content = [&[0xff, 0, b'x'][..], &[b'y'; 5000], b"\n\xfe"].concat();
        let edited = edit(content.clone(), &[change("x", "z", 1)], 10_000).unwrap();
        assert_eq!(edited.content[..3], [0xff, 0, b'z']);
        assert_eq!(edited.content[3..], content[3..]);
        assert!(edited.excerpt.len() < 1000 && edited.excerpt.contains("[...]"));
        let all = edit(b"a\n".repeat(5000), &[change("a", "b", 5000)], 10_000).unwrap();
        assert!(all.excerpt.len() < EXCERPT_BYTES + 1000 && all.excerpt.contains("more changes"));
    }

    proptest! {
        #[test]
        fn an_edit_is_what_replacing_says_and_can_be_taken_back(
            content in "[ab\n]{0,60}", old in "[ab\n]{1,3}", new in "[cd\n]{0,3}",
        ) {
            let count = u64::try_from(content.matches(&old).count()).unwrap();
            let edited = edit(content.clone().into(), &[change(&old, &new, count)], 1000).unwrap();
            prop_assert_eq!(edited.content, content.replace(&old, &new).into_bytes());
            prop_assert_eq!(edited.replacements, count);
            let marked = edit(content.clone().into(), &[change(&old, "#", count), change("#", &old, count)], 1000);
            prop_assert_eq!(marked.unwrap().content, content.clone().into_bytes());
            let wrong = edit(content.into(), &[change(&old, &new, count + 1)], 1000);
            let refused = matches!(wrong, Err(EditError::Count { actual, .. }) if actual == count);
            prop_assert!(refused);
        }

        #[test]
        fn no_bytes_make_an_edit_panic(
            content in prop::collection::vec(0u8..6, 0..80), old in prop::collection::vec(0u8..6, 1..3),
            new in prop::collection::vec(any::<u8>(), 0..50), expected in 0u64..9,
        ) {
            let edited = edit(content, &[Edit { old, new, expected }], 100);
            prop_assert!(edited.is_err() || edited.is_ok_and(|edited| edited.content.len() <= 100));
        }
    }
}
