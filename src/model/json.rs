//! What JSON an event may carry: what the strictest of the common parsers can read.
//!
//! A client that can't parse an event can't learn its id either, and is sent the same event at every resume. So
//! what JSON's grammar allows and common parsers refuse is refused here, whichever way the event comes in. The
//! function library has the same rules in `lua/json.lua`.

use memchr::memchr2;
use serde_json::value::RawValue;

/// How deep arrays and objects may be nested. The strictest parsers stop at 64 levels, and the answers that
/// carry an event put up to three around it.
pub const MAX_NESTING: usize = 60;

/// Why data can't be an event's; put behind whatever names the data. Places are counted in bytes, from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum JsonError {
    /// It breaks the grammar.
    #[error("is not JSON: {0}")]
    Syntax(String),
    /// Arrays and objects are nested too deep.
    #[error("is nested deeper than {MAX_NESTING} levels at byte {at}")]
    Nesting { at: usize },
    /// Half of a surrogate pair stands alone: no text has such a character.
    #[error("has a lone surrogate at byte {at}: \\u{unit:04x} is only half of a character")]
    Surrogate { at: usize, unit: u16 },
}

/// Whether `data` is JSON that every common parser can read.
pub fn check(data: &[u8]) -> Result<(), JsonError> {
    serde_json::from_slice::<&RawValue>(data).map_err(|error| JsonError::Syntax(error.to_string()))?;
    let mut depth = 0;
    let mut at = 0;
    while let Some(byte) = data.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(data, at)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Err(JsonError::Nesting { at });
                }
            }
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    Ok(())
}

/// Where the string ends whose characters begin at `at`: most of an event is in strings.
fn string_end(data: &[u8], mut at: usize) -> Result<usize, JsonError> {
    loop {
        // A string has both its quotes, as the grammar was checked.
        let Some(found) = data.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) else { return Ok(data.len()) };
        at += found;
        if data[at] == b'"' {
            return Ok(at + 1);
        }
        at = escape_end(data, at)?;
    }
}

/// Where the character ends whose escape begins at `at`.
fn escape_end(data: &[u8], at: usize) -> Result<usize, JsonError> {
    let Some(unit) = unit(data, at) else { return Ok(at + 2) };
    let is_pair = matches!(unit, 0xd800..=0xdbff) && matches!(self::unit(data, at + 6), Some(0xdc00..=0xdfff));
    match unit {
        _ if is_pair => Ok(at + 12),
        0xd800..=0xdfff => Err(JsonError::Surrogate { at: at + 1, unit }),
        _ => Ok(at + 6),
    }
}

/// The code unit of an escape `\uXXXX`, if one begins at `at`.
fn unit(data: &[u8], at: usize) -> Option<u16> {
    let digits = data.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn data_may_be_nested_so_deep_and_no_deeper() {
        assert_eq!(check(nested(MAX_NESTING).as_bytes()), Ok(()));
        let too_deep = Err(JsonError::Nesting { at: MAX_NESTING + 1 });
        assert_eq!(check(nested(MAX_NESTING + 1).as_bytes()), too_deep);
        assert_eq!(check(nested(30_000).as_bytes()), too_deep);
        // Side by side, or within strings, brackets nest nothing.
        assert_eq!(check(format!("[{}[]]", "[],".repeat(1000)).as_bytes()), Ok(()));
        assert_eq!(check(format!(r#"["{}\"[["]"#, "{[".repeat(1000)).as_bytes()), Ok(()));
    }

    #[test]
    fn a_lone_surrogate_is_refused_with_its_place() {
        for sound in [r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""\u00e4\n\"""#, r#"{"\uD83D\uDE00":1}"#, r#""\ue000""#] {
            assert_eq!(check(sound.as_bytes()), Ok(()), "{sound}");
        }
        for (data, at, unit) in [
            (r#""\ud83d""#, 2, 0xd83d),
            (r#""a\ude00\ud83d""#, 3, 0xde00),
            (r#""\ud83d\ud83d\ude00""#, 2, 0xd83d),
            (r#""\ud83dx\ude00""#, 2, 0xd83d),
            (r#"[1,{"\uDFFF":2}]"#, 6, 0xdfff),
            (r#""\\\ud800""#, 4, 0xd800),
        ] {
            assert_eq!(check(data.as_bytes()), Err(JsonError::Surrogate { at, unit }), "{data}");
        }
    }

    #[test]
    fn what_is_not_json_is_distinguished_from_what_is_merely_not_allowed() {
        for data in ["", "{", "[1,]", "nul", "\"\u{1}\"", "1 2"] {
            assert!(matches!(check(data.as_bytes()), Err(JsonError::Syntax(_))), "{data}");
        }
    }
}
