//! Text for a bash in a qube: assignments of arbitrary bytes, and what `read` takes in one piece.
//!
//! Everything rendered here is printable ASCII, so it means the same under every locale.

use std::fmt::Write;

/// A byte of zero stands where neither a path nor a command can have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a NUL byte cannot stand in a path or a command")]
pub struct NulByte;

/// Renders `NAME=$'…'` so that the variable holds exactly these bytes and is not exported.
pub(super) fn render_assignment(
    script: &mut String,
    name: &str,
    value: &[u8],
) -> Result<(), NulByte> {
    if value.contains(&0) {
        return Err(NulByte);
    }
    // The variable may stand exported in the qube's own environment: then it would be passed on.
    push(script, format_args!("unset -v {name};{name}=$'"));
    render_octal(script, value, b"'\\");
    script.push_str("'\n");
    Ok(())
}

/// Renders `NAME='…'` so that `printf -- "$NAME"` writes exactly these bytes, zeros too.
pub(super) fn render_format(script: &mut String, name: &str, content: &[u8]) {
    push(script, format_args!("unset -v {name};{name}='"));
    render_octal(script, content, b"'\\%");
    script.push_str("'\n");
}

/// Renders texts as words of bash, for `eval "list=($words)"`: each becomes exactly one of the list.
pub(super) fn render_words(words: &[String]) -> Result<String, NulByte> {
    let mut script = String::new();
    for word in words {
        if word.contains('\0') {
            return Err(NulByte);
        }
        script.push_str("$'");
        render_octal(&mut script, word.as_bytes(), b"'\\");
        script.push_str("' ");
    }
    Ok(script)
}

/// Renders the line on which bash takes in `script` as one block and only then runs it.
///
/// bash reads a script from a pipe byte by byte; `read -N` takes the rest at once, and a script that
/// was cut off does not run at all.
pub(super) fn render_block(script: &str) -> String {
    // Within `eval`, bash 5.2 crashes when the descriptor it reads its script from is duplicated.
    format!("exec 3<&0;set +a;LC_ALL=C read -rN {} -u 3 s&&eval \"$s\"\n{script}", script.len())
}

/// Printable ASCII as it is, apart from `special`; all else as three octal digits.
fn render_octal(script: &mut String, bytes: &[u8], special: &[u8]) {
    script.reserve(bytes.len());
    for &byte in bytes {
        if (b' '..=b'~').contains(&byte) && !special.contains(&byte) {
            script.push(char::from(byte));
        } else {
            push(script, format_args!("\\{byte:03o}"));
        }
    }
}

fn push(script: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String has no way to fail.
    let _: Result<(), std::fmt::Error> = script.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_printable_and_holds_any_byte_but_nul() {
        let mut script = String::new();
        render_assignment(&mut script, "path", b"it's\n\\ \xff$(x)").unwrap();
        assert_eq!(script, "unset -v path;path=$'it\\047s\\012\\134 \\377$(x)'\n");
        assert_eq!(render_assignment(&mut script, "path", b"a\0b"), Err(NulByte));
    }

    #[test]
    fn a_format_holds_any_byte() {
        let mut script = String::new();
        render_format(&mut script, "format", b"100%\0'\\");
        assert_eq!(script, "unset -v format;format='100\\045\\000\\047\\134'\n");
    }

    #[test]
    fn words_stay_apart_whatever_they_hold() {
        let words = ["ls", "a b", "it's", ""].map(str::to_owned);
        assert_eq!(render_words(&words).unwrap(), "$'ls' $'a b' $'it\\047s' $'' ");
        assert_eq!(render_words(&["a\0".to_owned()]), Err(NulByte));
    }

    #[test]
    fn a_block_says_how_long_it_is() {
        let expected = "exec 3<&0;set +a;LC_ALL=C read -rN 5 -u 3 s&&eval \"$s\"\ntrue\n";
        assert_eq!(render_block("true\n"), expected);
    }
}
