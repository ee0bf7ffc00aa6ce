//! W3C Trace Context: the `traceparent` that comes with a publish.

use std::fmt;

/// The trace that a publish belongs to, and the span of it that published.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: [u8; 16],
    parent: [u8; 8],
    flags: u8,
}

/// Characters of the version that is understood, `00`. A newer one begins with the same fields.
const LENGTH: usize = 55;

/// The flags that are known: sampled, and that the trace's id is random. Others are not passed on.
const KNOWN_FLAGS: u8 = SAMPLED | 2;

const SAMPLED: u8 = 1;

impl TraceParent {
    /// A context of a trace and one of its spans. Neither may be zero.
    pub fn new(trace: [u8; 16], parent: [u8; 8], sampled: bool) -> Self {
        TraceParent { trace, parent, flags: if sampled { SAMPLED } else { 0 } }
    }

    /// Reads the value of a `traceparent` header; `None` where it is invalid. The specification has such a one ignored,
    /// as what goes wrong in tracing is to break nothing else.
    pub fn read(text: &[u8]) -> Option<Self> {
        let (fields, rest) = text.split_at_checked(LENGTH)?;
        if fields[2] != b'-' || fields[35] != b'-' || fields[52] != b'-' {
            return None;
        }
        let ([version], trace, parent, [flags]) =
            (hex(&fields[..2])?, hex(&fields[3..35])?, hex(&fields[36..52])?, hex(&fields[53..])?);
        let is_sound = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        (is_sound && trace != [0; 16] && parent != [0; 8]).then_some(TraceParent {
            trace,
            parent,
            flags: flags & KNOWN_FLAGS,
        })
    }

    /// The id of the trace.
    pub fn trace(&self) -> [u8; 16] {
        self.trace
    }

    /// The id of the span that published, the parent of those that follow.
    pub fn parent(&self) -> [u8; 8] {
        self.parent
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace, with another span as the parent of those that follow.
    pub fn below(self, parent: [u8; 8]) -> Self {
        TraceParent { parent, ..self }
    }
}

/// Lower-case digits alone, as the specification has them.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, parent) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.parent));
        write!(f, "00-{trace:032x}-{parent:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    fn read(text: &str) -> Option<String> {
        TraceParent::read(text.as_bytes()).map(|trace| trace.to_string())
    }

    #[test]
    fn a_sound_context_is_kept_as_it_is() {
        for flags in ["00", "01", "02", "03"] {
            let text = format!("00-{TRACE}-{PARENT}-{flags}");
            assert_eq!(read(&text), Some(text));
        }
        let sampled =
            |flags| TraceParent::read(format!("00-{TRACE}-{PARENT}-{flags}").as_bytes()).unwrap().is_sampled();
        assert!(sampled("01") && sampled("03") && !sampled("00") && !sampled("02"));
    }

    #[test]
    fn flags_that_are_not_known_are_not_passed_on() {
        assert_eq!(read(&format!("00-{TRACE}-{PARENT}-ff")), Some(format!("00-{TRACE}-{PARENT}-03")));
    }

    #[test]
    fn of_a_newer_version_the_known_fields_are_read() {
        let known = format!("00-{TRACE}-{PARENT}-01");
        for text in [format!("cc-{TRACE}-{PARENT}-01"), format!("cc-{TRACE}-{PARENT}-01-what-the-future-adds")] {
            assert_eq!(read(&text).as_ref(), Some(&known));
        }
        assert_eq!(read(&format!("cc-{TRACE}-{PARENT}-01.what")), None);
    }

    #[test]
    fn an_invalid_context_is_none() {
        let (no_trace, no_parent) = ("0".repeat(32), "0".repeat(16));
        for text in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{no_trace}-{PARENT}-01"),
            format!("00-{TRACE}-{no_parent}-01"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00_{TRACE}_{PARENT}_01"),
            format!("00-{}g-{PARENT}-01", &TRACE[1..]),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-é"),
        ] {
            assert_eq!(read(&text), None, "{text:?}");
        }
    }
}
