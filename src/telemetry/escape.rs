//! Strings from outside, made harmless for logs: one line, no terminal escapes, no reordering, bounded. Pure.
//!
//! Keeps true: what is written is a valid inside of a JSON string, and reads back as the same text.
//! Must not know: which line a string is for.

/// Writes `text` with everything escaped that could end the line or the quotes, drive a terminal, or deceive the eye:
/// quotes, backslashes, control characters (C0, DEL, C1) and invisible or reordering format characters.
pub(crate) fn escape_into(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            plain if !needs_escape(plain) => out.push(plain),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    out.push_str("\\u");
                    for shift in [12, 8, 4, 0] {
                        let digit = u32::from(*unit >> shift) & 0xf;
                        out.push(char::from_digit(digit, 16).unwrap_or('0'));
                    }
                }
            }
        }
    }
}

/// Whether [`escape_into`] changes this character.
pub(crate) fn needs_escape(character: char) -> bool {
    matches!(character, '"' | '\\') || deceives(character)
}

/// Whether a character makes a text look like another one, or a line like two.
pub(crate) fn deceives(character: char) -> bool {
    character.is_control()
        // Zero-width and bidirectional controls, line and paragraph separators, interlinear marks, tags
        // (Unicode's general categories Cf, Zl and Zp, as far as they deceive).
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// At most `limit` bytes of `text`, cut between characters; `true` if something was cut.
pub(crate) fn bounded(text: &str, limit: usize) -> (&str, bool) {
    if text.len() <= limit {
        return (text, false);
    }
    let end = text.floor_char_boundary(limit);
    (text.get(..end).unwrap_or_default(), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_becomes_one_harmless_line_that_reads_back(text in ".*|[\\x00-\\x1f\\x7f-\\x9f\u{200b}-\u{202e}]*") {
            let mut out = String::from("\"");
            escape_into(&mut out, &text);
            out.push('"');
            let harmful = out.chars().any(|character| character.is_control() || character == '\u{202e}');
            prop_assert!(!harmful);
            let back: String = serde_json::from_str(&out).unwrap();
            prop_assert_eq!(back, text);
        }
    }

    #[test]
    fn escapes_are_those_of_json() {
        let mut out = String::new();
        escape_into(&mut out, "a\"\\\n\u{1b}[31m\u{9b}\u{202e}é\u{e0041}");
        assert_eq!(out, "a\\\"\\\\\\n\\u001b[31m\\u009b\\u202eé\\udb40\\udc41");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(bounded("aé", 2), ("a", true));
        assert_eq!(bounded("aé", 3), ("aé", false));
    }
}
