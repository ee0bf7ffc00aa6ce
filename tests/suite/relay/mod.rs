//! `whimbrel relay postgres`: what transactions write into an outbox becomes events, in order and each once.

mod kills;
mod measured;
mod one;
mod start;
mod together;

use tokio_postgres::Client as Database;

use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::command::{Running, run, start};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::postgres::Postgres;

/// A database with the table that the program prints.
async fn database() -> (Postgres, Database) {
    let postgres = Postgres::start();
    let client = postgres.client().await;
    client.batch_execute(&schema("outbox").await).await.unwrap();
    (postgres, client)
}

/// The statements that the program prints for a table.
async fn schema(table: &str) -> String {
    let printed = run(&["relay", "postgres", "--print-schema", "--table", table], &[], b"").await;
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""), "{printed:?}");
    printed.stdout
}

/// A relay from a database to a server, at work.
async fn relay(postgres: &Postgres, url: &str, more: &[&str]) -> Running {
    let relay = start_relay(postgres, url, more);
    relay.said("draining").await;
    relay
}

fn start_relay(postgres: &Postgres, url: &str, more: &[&str]) -> Running {
    let dsn = postgres.dsn();
    let arguments = ["relay", "postgres", "--dsn", &dsn, "--url", url];
    start(&[&arguments, more].concat(), &[])
}

/// Inserts numbers as events of a stream, in one statement.
async fn insert(database: &Database, stream: &str, numbers: std::ops::Range<i32>) {
    let sql = "INSERT INTO outbox (stream, data) SELECT $1, to_json(n) FROM generate_series($2::int, $3::int) AS n";
    database.execute(sql, &[&stream, &numbers.start, &(numbers.end - 1)]).await.unwrap();
}

/// Waits until so many rows are in the table.
async fn rows(database: &Database, wanted: i64) {
    let count = async || {
        let count: i64 = database.query_one("SELECT count(*) FROM outbox", &[]).await.ok()?.get(0);
        (count == wanted).then_some(())
    };
    eventually(&format!("{wanted} rows in the table"), count).await;
}

async fn listener(node: &Node, streams: &[&str]) -> Client {
    Wanted::new(Transport::WebSocket, streams).after("earliest").connect(node).await
}

/// The next event: its stream, type and data.
async fn next(client: &mut Client) -> (String, String, String) {
    let event = client.event().await;
    (event.stream, event.kind, event.data)
}

/// Reads `each` numbers of every stream: from 0 on, in order and each once.
async fn read_all(client: &mut Client, streams: &[String], each: i32) {
    let mut expected: std::collections::BTreeMap<_, i32> = streams.iter().map(|stream| (stream.clone(), 0)).collect();
    let mut left = streams.len() * usize::try_from(each).unwrap();
    while left > 0 {
        match client.next().await {
            Said::Event(event) => {
                let next = expected.get_mut(&event.stream).unwrap();
                assert_eq!(event.data, next.to_string(), "of {}", event.stream);
                *next += 1;
                left -= 1;
            }
            Said::Position => {}
            other => panic!("with {left} to come {other:?}"),
        }
    }
}
