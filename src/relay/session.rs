//! A connection to the database that listens for new rows, and what is asked of the table over it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Connection, Error, IsolationLevel, Row as Record, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::row::{MAX_DATA_BYTES, Mark, Row, in_order};
use super::settlement::{Settlement, columns};
use super::statements::{COLUMNS, LOOK, Statements};
use super::table::{CHANNEL, REQUIRED, Required, TableName};
use super::{Dsn, LANES};
use crate::client::{BATCH_BYTES, BATCH_EVENTS};

/// For how long the database lets a transaction stand idle: longer than a request to the server may take. Then it ends the
/// session, so that a relay that was stopped in the middle keeps no lanes.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// How long a statement may take.
const STATEMENT_TIME: Duration = Duration::from_secs(60);

/// Why the table can't be drained as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum TableError {
    /// There is none.
    #[error(
        "there is no table {0} in the database; `whimbrel relay postgres --print-schema` prints the statements that \
         create it"
    )]
    Missing(TableName),
    /// It is something else.
    #[error("{0} is no table that rows can be taken from")]
    Kind(TableName),
    /// Columns are missing.
    #[error(
        "the table {table} lacks {columns}; `whimbrel relay postgres --print-schema` prints what it has to be made of"
    )]
    Columns { table: TableName, columns: String },
    /// A column can't be read.
    #[error("the column {column} of the table {table} is {found}; allowed are {allowed}")]
    Type { table: TableName, column: &'static str, found: String, allowed: String },
    /// A column may be null.
    #[error("the column {column} of the table {table} may be null; it has to be NOT NULL")]
    Null { table: TableName, column: &'static str },
    /// The user may not do what is needed.
    #[error("the user lacks {rights} on the table {table}: GRANT SELECT, UPDATE, DELETE ON {table} TO …")]
    Rights { table: TableName, rights: String },
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database can't be reached, or not be asked.
    #[error(transparent)]
    Database(#[from] Error),
    /// The table can't be drained.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// An open connection, and the table that it is for.
pub struct Session {
    client: Client,
    announced: Arc<Notify>,
    table: Statements,
    _driver: Driver,
}

/// Reads what the database says by itself, until the connection ends or this is dropped.
struct Driver(JoinHandle<()>);

impl Driver {
    /// Has `announced` notified of new rows, and of the end.
    fn start<S, T>(mut connection: Connection<S, T>, announced: Arc<Notify>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Driver(tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if matches!(message, AsyncMessage::Notification(_)) {
                    announced.notify_one();
                }
            }
            announced.notify_one();
        }))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Connects, looks whether the table is what it has to be, and begins to listen.
    pub async fn open(dsn: &Dsn, name: &TableName, keep: bool) -> Result<Self, OpenError> {
        let (client, connection) = dsn.config.connect(MakeRustlsConnect::new(dsn.tls.clone())).await?;
        let announced = Arc::new(Notify::new());
        let driver = Driver::start(connection, Arc::clone(&announced));
        let table = look(&client, name, keep).await?;
        let (idle, statement) = (IDLE_TIME.as_millis(), STATEMENT_TIME.as_millis());
        let settings = format!(
            "SET idle_in_transaction_session_timeout = {idle}; SET statement_timeout = {statement}; LISTEN {CHANNEL}"
        );
        client.batch_execute(&settings).await?;
        client.execute("SELECT pg_advisory_lock_shared($1)", &[&table.presence()]).await?;
        Ok(Session { client, announced, table, _driver: driver })
    }

    /// Waits until new rows are announced, or the connection has ended.
    pub async fn announced(&self) {
        self.announced.notified().await;
    }

    /// The fingerprint of the table.
    pub fn fingerprint(&self) -> u64 {
        self.table.fingerprint
    }

    /// For how many seconds the oldest row that is to be published has waited.
    pub async fn lag(&self) -> Result<f64, Error> {
        Ok(self.client.query_one(&self.table.lag, &[&lanes()]).await?.get(0))
    }

    /// Begins a round. Each of its statements sees what was committed before it.
    pub async fn begin(&mut self) -> Result<Round<'_>, Error> {
        let builder = self.client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
        Ok(Round { transaction: builder.start().await?, table: &self.table })
    }
}

/// A transaction that holds the locks of lanes.
pub struct Round<'a> {
    transaction: Transaction<'a>,
    table: &'a Statements,
}

impl Round<'_> {
    /// Locks lanes in which rows wait, as many as fall to this relay, and takes at most `most` of those rows, in order of
    /// their ids, and not many more than [`BATCH_BYTES`] of data. Rows of the streams in `held` stay.
    pub async fn take(&self, held: &[&str], most: usize) -> Result<Vec<Row>, Error> {
        let mut order = lanes();
        order.shuffle(&mut rand::rng());
        let (base, [high, low]) = (self.table.base(), halves(self.table.presence()));
        let locked = self.transaction.query(&self.table.lock, &[&order, &held, &base, &high, &low]).await?;
        let lanes: Vec<i64> = locked.iter().map(|lane| lane.get(0)).collect();
        if lanes.is_empty() {
            return Ok(Vec::new());
        }
        let each = i64::try_from(most.div_ceil(lanes.len())).unwrap_or(i64::MAX);
        let found = self.transaction.query(&self.table.choose, &[&lanes, &held, &each]).await?;
        let chosen = within_bounds(&found, most);
        let ids: Vec<i64> = chosen.iter().map(|(id, _)| *id).collect();
        let rows = self.transaction.query(&self.table.fetch, &[&ids, &MAX_DATA_BYTES]).await?;
        Ok(in_order(&chosen, rows.iter().map(row).collect()))
    }

    /// Writes down what became of rows, and ends the round.
    pub async fn settle(self, settlement: &Settlement) -> Result<(), Error> {
        if !settlement.published.is_empty() {
            let (ids, times) = columns(settlement.published.iter());
            self.transaction.execute(&self.table.published, &[&ids, &times]).await?;
        }
        if !settlement.rejected.is_empty() {
            let (ids, times) = columns(settlement.rejected.iter().map(|(mark, _)| mark));
            let reasons: Vec<_> = settlement.rejected.iter().map(|(_, reason)| reason.as_str()).collect();
            self.transaction.execute(&self.table.rejected, &[&ids, &times, &reasons]).await?;
        }
        self.transaction.commit().await
    }
}

/// The first of the rows that were found: few enough, and not too large together.
fn within_bounds(found: &[Record], most: usize) -> Vec<(i64, String)> {
    let mut bytes = 0_i64;
    let fitting = found.iter().take(most.clamp(1, BATCH_EVENTS)).take_while(|row| {
        let first = bytes == 0;
        // What is larger is not fetched.
        bytes += row.get::<_, i64>(2).min(MAX_DATA_BYTES) + 1;
        first || bytes <= BATCH_BYTES as i64
    });
    fitting.map(|row| (row.get(0), row.get(1))).collect()
}

fn row(record: &Record) -> Row {
    Row {
        mark: Mark { id: record.get(0), created_us: record.get(1) },
        stream: record.get(2),
        data: record.get(3),
        kind: record.get(4),
        key: record.get(5),
        ttl: record.get(6),
        collapse: record.get(7),
    }
}

/// The table, if it is what it has to be.
async fn look(client: &Client, name: &TableName, keep: bool) -> Result<Statements, OpenError> {
    let found = client.query_opt(LOOK, &[&name.to_string()]).await?;
    let found = found.ok_or_else(|| TableError::Missing(name.clone()))?;
    let (oid, kind): (u32, String) = (found.get("oid"), found.get("kind"));
    let table = TableName::new(found.get("schema"), found.get("name"));
    if !["r", "p"].contains(&kind.as_str()) {
        return Err(TableError::Kind(table).into());
    }
    let columns = client.query(COLUMNS, &[&oid]).await?;
    let columns: Vec<_> = columns.iter().map(column).collect();
    check_columns(&table, &columns)?;
    let lacking = ["SELECT", "UPDATE", "DELETE"].into_iter().filter(|right| !found.get::<_, bool>(*right));
    let rights = lacking.collect::<Vec<_>>().join(", ");
    if !rights.is_empty() {
        return Err(TableError::Rights { table, rights }.into());
    }
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    Ok(Statements::new(&table, found.get("database"), has, keep))
}

/// A column that a table has.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: String,
    nullable: bool,
}

fn column(record: &Record) -> Column {
    Column { name: record.get(0), kind: record.get(1), nullable: !record.get::<_, bool>(2) }
}

fn check_columns(table: &TableName, columns: &[Column]) -> Result<(), TableError> {
    let found = |wanted: &Required| columns.iter().find(|column| column.name == wanted.name);
    let missing: Vec<_> = REQUIRED.iter().filter(|wanted| found(wanted).is_none()).map(|wanted| wanted.name).collect();
    if !missing.is_empty() {
        let noun = if missing.len() == 1 { "the column" } else { "the columns" };
        let columns = format!("{noun} {}", missing.join(", "));
        return Err(TableError::Columns { table: table.clone(), columns });
    }
    for wanted in &REQUIRED {
        let Some(Column { kind, nullable, .. }) = found(wanted) else { continue };
        let (table, column) = (table.clone(), wanted.name);
        if !wanted.types.contains(&kind.as_str()) {
            let allowed = wanted.types.join(", ");
            return Err(TableError::Type { table, column, found: kind.clone(), allowed });
        }
        if *nullable && !wanted.nullable {
            return Err(TableError::Null { table, column });
        }
    }
    Ok(())
}

fn lanes() -> Vec<i64> {
    (0..LANES).collect()
}

/// A lock's number as the database lists it: as two numbers of 32 bits.
fn halves(lock: i64) -> [i64; 2] {
    let lock = lock.cast_unsigned();
    [lock >> 32, lock & 0xffff_ffff].map(u64::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_table_lacks_is_named() {
        let table: TableName = "app.outbox".parse().unwrap();
        let sound = |wanted: &Required| {
            let (name, kind) = (wanted.name.to_owned(), wanted.types[0].to_owned());
            Column { name, kind, nullable: wanted.nullable }
        };
        let mut columns: Vec<_> = REQUIRED.iter().map(sound).collect();
        assert_eq!(check_columns(&table, &columns), Ok(()));
        columns[3].nullable = true;
        let null = check_columns(&table, &columns).unwrap_err().to_string();
        assert!(null.contains("created_at") && null.contains("NOT NULL"), "{null}");
        columns[2].kind = "bytea".into();
        let wrong = check_columns(&table, &columns).unwrap_err().to_string();
        assert!(wrong.contains("data of the table \"app\".\"outbox\" is bytea; allowed are json, jsonb"), "{wrong}");
        columns.truncate(4);
        let missing = check_columns(&table, &columns).unwrap_err().to_string();
        assert!(missing.contains("\"app\".\"outbox\" lacks the columns sent_at, error; "), "{missing}");
    }

    #[test]
    fn a_lock_is_listed_in_two_halves() {
        let [high, low] = halves(-2);
        assert_eq!((high, low), (0xffff_ffff, 0xffff_fffe));
    }
}
