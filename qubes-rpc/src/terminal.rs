//! Text that a terminal shows and does not obey: agents and qubes chose parts of it.

/// Whether a character moves the cursor, is not seen, or turns the direction of writing.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

/// The text with a replacement character for each that is hidden.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// The same JSON, with all that is hidden in its strings written as escapes.
pub(crate) fn escape_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        // A bare newline stands between values only.
        if is_hidden(character) && character != '\n' {
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "a\u{9b}31m\u{7f}\u{202e}é\u{61c}\u{1b}\n";

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_still_the_same_json() {
        let json = escape_json(&serde_json::json!({ "message": SAID }).to_string());
        assert_eq!(json, r#"{"message":"a\u009b31m\u007f\u202eé\u061c\u001b\n"}"#);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["message"], SAID);
        let pretty = serde_json::to_string_pretty(&serde_json::json!([1])).unwrap();
        assert_eq!(escape_json(&pretty), pretty);
    }

    #[test]
    fn in_a_table_it_is_replaced() {
        assert_eq!(printable(SAID), "a\u{fffd}31m\u{fffd}\u{fffd}é\u{fffd}\u{fffd}\u{fffd}");
    }
}
