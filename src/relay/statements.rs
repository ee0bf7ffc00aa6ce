//! The statements of SQL that a relay sends.

use super::table::{OPTIONAL, PENDING, TableName, lane};
use super::{LANES, fingerprint};

/// The table that `$1` names.
pub const LOOK: &str = r#"
SELECT c.oid, c.relkind::text AS kind, n.nspname::text AS schema, c.relname::text AS name,
       current_database()::text AS database,
       has_table_privilege(c.oid, 'SELECT') AS "SELECT",
       has_table_privilege(c.oid, 'UPDATE') AS "UPDATE",
       has_table_privilege(c.oid, 'DELETE') AS "DELETE"
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass($1)
"#;

/// The columns of a table, with their types, and whether they are NOT NULL.
pub const COLUMNS: &str = "
SELECT attname::text, format_type(atttypid, NULL), attnotnull FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
";

/// A time of creation as a whole number. 'infinity' has none.
const CREATED_US: &str =
    "CASE WHEN isfinite(created_at) THEN (extract(epoch FROM created_at) * 1000000)::bigint ELSE 0 END";

/// The statements about one table.
#[derive(Debug)]
pub struct Statements {
    pub fingerprint: u64,
    pub lag: String,
    pub lock: String,
    pub choose: String,
    pub fetch: String,
    pub published: String,
    pub rejected: String,
}

impl Statements {
    /// Of the table of this name in this database, with `keep` for one whose rows are marked and not deleted. `has` says
    /// which of the optional columns are there.
    pub fn new(name: &TableName, database: &str, has: impl Fn(&str) -> bool, keep: bool) -> Self {
        let lane = lane();
        let optional =
            OPTIONAL.map(|column| if has(column) { format!("{column}::text") } else { "NULL::text".to_owned() });
        let settled = format!("target.id = settled.id AND {CREATED_US} = settled.created_us");
        let list = "unnest($1::bigint[], $2::bigint[]) AS settled (id, created_us)";
        Statements {
            fingerprint: fingerprint(&format!("{database}/{name}")),
            lag: format!(
                "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - oldest.since)), 0)::float8
                 FROM unnest($1::bigint[]) AS lanes (lane) CROSS JOIN LATERAL (
                     SELECT CASE WHEN isfinite(created_at) THEN created_at END AS since FROM {name}
                     WHERE {lane} = lanes.lane AND {PENDING} ORDER BY id LIMIT 1
                 ) AS oldest"
            ),
            // A lane without rows is left to others: CASE sees to it that nothing is locked before that is known, and
            // LIMIT that no more is locked than falls to this relay.
            lock: format!(
                "SELECT lanes.lane FROM unnest($1::bigint[]) AS lanes (lane)
                 WHERE CASE WHEN EXISTS (
                     SELECT FROM {name}
                     WHERE {lane} = lanes.lane AND {PENDING} AND stream::text <> ALL ($2::text[])
                 ) THEN pg_try_advisory_xact_lock($3::bigint + lanes.lane) ELSE false END
                 LIMIT (
                     SELECT ceil({LANES}.0 / greatest(count(*), 1))::bigint FROM pg_locks
                     WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted AND objsubid = 1
                     AND classid::bigint = $4::bigint AND objid::bigint = $5::bigint
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 )"
            ),
            choose: format!(
                "SELECT chosen.id, chosen.stream, chosen.bytes
                 FROM unnest($1::bigint[]) AS lanes (lane) CROSS JOIN LATERAL (
                     SELECT id::bigint, stream::text, octet_length(data::text)::bigint AS bytes FROM {name}
                     WHERE {lane} = lanes.lane AND {PENDING} AND stream::text <> ALL ($2::text[])
                     ORDER BY id LIMIT $3
                 ) AS chosen ORDER BY chosen.id"
            ),
            fetch: format!(
                "SELECT id::bigint, {CREATED_US}, stream::text,
                     CASE WHEN octet_length(data::text) <= $2::bigint THEN data::text END, {}
                 FROM {name} WHERE id = ANY ($1::bigint[]) AND {PENDING} FOR UPDATE SKIP LOCKED",
                optional.join(", ")
            ),
            published: if keep {
                format!("UPDATE {name} AS target SET sent_at = clock_timestamp() FROM {list} WHERE {settled}")
            } else {
                format!("DELETE FROM {name} AS target USING {list} WHERE {settled}")
            },
            rejected: format!(
                "UPDATE {name} AS target SET error = settled.error
                 FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS settled (id, created_us, error)
                 WHERE {settled}"
            ),
        }
    }

    /// The lock of the first lane; those of the others follow.
    pub fn base(&self) -> i64 {
        (self.fingerprint & !0xff).cast_signed()
    }

    /// A lock that every relay of the table shares, by which they are counted.
    pub fn presence(&self) -> i64 {
        (self.fingerprint | 0xff).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_lanes_and_of_presence_are_apart() {
        let table = Statements::new(&"outbox".parse().unwrap(), "shop", |_| false, false);
        assert!(!(0..LANES).any(|lane| table.base() + lane == table.presence()));
    }
}
