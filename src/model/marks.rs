//! Marks: up to which stamp the connections of a device have to close.

use std::fmt;
use std::str::FromStr;

/// Every connection of a device gets a stamp when it claims its slot, above all stamps before it. To close
/// them is then a number: a connection with a stamp up to the mark closes, however late its node learns of it,
/// and one that came later stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Connections up to here were kicked.
    pub kicked: u64,
    /// Connections up to here gave way to newer ones.
    pub replaced: u64,
}

impl Marks {
    /// The marks of both.
    pub fn merged(self, other: Marks) -> Marks {
        Marks { kicked: self.kicked.max(other.kicked), replaced: self.replaced.max(other.replaced) }
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kicked, self.replaced)
    }
}

/// Why a text is not a pair of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected two numbers")]
pub struct MarksError;

impl FromStr for Marks {
    type Err = MarksError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kicked, replaced) = text.split_once(' ').ok_or(MarksError)?;
        let number = |text: &str| text.parse().map_err(|_| MarksError);
        Ok(Marks { kicked: number(kicked)?, replaced: number(replaced)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_back_as_they_were_written() {
        let marks = Marks { kicked: 1_763_795_000_000_001, replaced: 7 };
        assert_eq!(marks.to_string().parse(), Ok(marks));
        for text in ["", "5", "5 ", " 5", "a b", "5 6 7"] {
            assert_eq!(text.parse::<Marks>(), Err(MarksError), "{text:?}");
        }
    }
}
