//! The name of an outbox table, and what it has to be made of.

use std::fmt;
use std::str::FromStr;

use super::LANES;

/// Longest identifier of PostgreSQL, in bytes.
const MAX_IDENTIFIER: usize = 63;

/// What the names of the index and the trigger add to that of the table, at most.
const LONGEST_SUFFIX: usize = 10;

/// The channel on which triggers announce new rows.
pub(super) const CHANNEL: &str = "whimbrel_relay";

/// Rows that are still to be published.
pub(super) const PENDING: &str = "sent_at IS NULL AND error IS NULL";

/// A column that a table has to have.
pub(super) struct Required {
    pub name: &'static str,
    /// The types that it may be of.
    pub types: &'static [&'static str],
    /// Whether it may be null.
    pub nullable: bool,
}

/// Columns that a table has to have. No reason is too long for `error`.
pub(super) const REQUIRED: [Required; 6] = [
    Required { name: "id", types: &["bigint", "integer", "smallint"], nullable: false },
    Required { name: "stream", types: &["text", "character varying"], nullable: false },
    Required { name: "data", types: &["json", "jsonb", "text", "character varying"], nullable: false },
    Required { name: "created_at", types: TIME, nullable: false },
    Required { name: "sent_at", types: TIME, nullable: true },
    Required { name: "error", types: &["text"], nullable: true },
];

/// Columns that it may have besides.
pub(super) const OPTIONAL: [&str; 4] = ["type", "key", "ttl", "collapse"];

const TIME: &[&str] = &["timestamp with time zone"];

/// The lane of a row.
pub(super) fn lane() -> String {
    format!("(hashtextextended(stream, 0) & {})", LANES - 1)
}

/// The name of a table, with or without its schema, as PostgreSQL keeps it: in lower case unless it was created in
/// double quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    schema: Option<String>,
    name: String,
}

/// Why a text is no name of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' names no table; expected NAME or SCHEMA.NAME, each 1 to {MAX_IDENTIFIER} bytes, in double quotes if it holds \
     a dot or double quotes, which are written twice"
)]
pub struct TableNameError(String);

impl TableName {
    pub(super) fn new(schema: String, name: String) -> Self {
        TableName { schema: Some(schema), name }
    }

    /// A name that begins as the table's, in quotes.
    fn derived(&self, suffix: &str) -> String {
        debug_assert!(suffix.len() <= LONGEST_SUFFIX);
        let end = self.name.floor_char_boundary(MAX_IDENTIFIER - LONGEST_SUFFIX);
        quoted(&format!("{}{suffix}", &self.name[..end]))
    }

    /// The same in the schema of the table.
    fn beside(&self, suffix: &str) -> String {
        let schema = self.schema.as_deref().map(|schema| quoted(schema) + ".");
        schema.unwrap_or_default() + &self.derived(suffix)
    }

    /// Statements that create the table with its index and the trigger that announces new rows.
    pub fn schema(&self) -> String {
        let (lane, index) = (lane(), self.derived("_pending"));
        let (function, trigger) = (self.beside("_announce"), self.derived("_announce"));
        format!(
            "\
CREATE TABLE {self} (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream     text NOT NULL, -- device:NAME or topic:NAME
    type       text,          -- of the event; 'message' if null
    data       json NOT NULL, -- of the event; jsonb, or text that holds JSON, will do as well
    key        text,          -- idempotency key; one is made of the row if null
    ttl        integer,       -- seconds for which the event is delivered; as long as it is kept if null
    collapse   text,          -- collapse key, if any
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at    timestamptz,   -- when it was published, with --keep; otherwise the row is deleted
    error      text           -- why it can't be published; set to null it is tried again
);

-- Rows that are still to be published.
CREATE INDEX {index} ON {self} ({lane}, id) WHERE {PENDING};

-- Announces new rows, so that they are published at once. Without it they wait for the next poll.
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{CHANNEL}', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER {trigger} AFTER INSERT ON {self} FOR EACH STATEMENT EXECUTE FUNCTION {function}();
"
        )
    }
}

/// As SQL has it: every part in double quotes.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quoted(schema))?;
        }
        f.write_str(&quoted(&self.name))
    }
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || TableNameError(text.chars().take(64).collect());
        let (first, rest) = part(text).ok_or_else(refuse)?;
        let Some(rest) = rest else { return Ok(TableName { schema: None, name: first }) };
        match part(rest) {
            Some((name, None)) => Ok(TableName { schema: Some(first), name }),
            _ => Err(refuse()),
        }
    }
}

/// The first part of a name, and what follows its dot.
fn part(text: &str) -> Option<(String, Option<&str>)> {
    let (part, rest) = match text.strip_prefix('"') {
        None => match text.split_once('.') {
            Some((part, rest)) => (part.to_owned(), Some(rest)),
            None => (text.to_owned(), None),
        },
        Some(inner) => {
            let pairs = inner.replace("\"\"", "\0\0");
            let end = pairs.find('"')?;
            let rest = match &inner[end + 1..] {
                "" => None,
                rest => Some(rest.strip_prefix('.')?),
            };
            (inner[..end].replace("\"\"", "\""), rest)
        }
    };
    let sound = (1..=MAX_IDENTIFIER).contains(&part.len()) && !part.contains('\0');
    let plain = text.starts_with('"') || !part.contains('"');
    (sound && plain).then_some((part, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_quoted_whatever_it_holds() {
        for (text, sql) in [
            ("outbox", r#""outbox""#),
            ("app.Outbox", r#""app"."Outbox""#),
            (r#""a.b"."x""; DROP TABLE y""#, r#""a.b"."x""; DROP TABLE y""#),
            (r#""a""b""#, r#""a""b""#),
            ("x; DROP TABLE y", r#""x; DROP TABLE y""#),
        ] {
            assert_eq!(text.parse::<TableName>().unwrap().to_string(), sql);
        }
    }

    #[test]
    fn what_names_no_table_is_refused() {
        let long = "x".repeat(64);
        for text in ["", ".", "a.", ".a", "a.b.c", r#""a"#, r#""a"b"#, r#"a"b"#, "a\0b", &long] {
            assert!(text.parse::<TableName>().unwrap_err().to_string().contains("SCHEMA.NAME"), "{text:?}");
        }
    }

    #[test]
    fn names_beside_a_long_one_do_not_run_into_it() {
        let name: TableName = "é".repeat(31).parse().unwrap();
        for derived in [name.derived("_pending"), name.derived("_announce")] {
            assert!(derived.len() <= MAX_IDENTIFIER + 2 && derived != name.to_string(), "{derived}");
        }
        assert_ne!(name.derived("_pending"), name.derived("_announce"));
    }
}
