//! What a start needs, and what it says where that is missing.

use super::*;
use crate::support::command::Outcome;
use crate::support::free_port;
use crate::support::postgres::try_client;
use crate::support::tls::Authority;

#[track_caller]
fn refused(outcome: &Outcome, code: i32, named: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    for named in named {
        assert!(outcome.stderr.contains(named), "{named}: {outcome:?}");
    }
    assert!(!format!("{outcome:?}").contains("s3cret"), "{outcome:?}");
}

async fn relay_of(dsn: &str, more: &[&str]) -> Outcome {
    run(&[&["relay", "postgres", "--dsn", dsn][..], more].concat(), &[], b"").await
}

#[tokio::test]
async fn what_can_not_work_ends_the_start_with_what_is_missing() {
    let (postgres, database) = database().await;
    refused(&run(&["relay", "postgres"], &[], b"").await, 2, &["--dsn", "WHIMBREL_POSTGRES_DSN"]);
    refused(&relay_of("postgres://me:s3cret@host:port/x", &[]).await, 2, &["--dsn", "no connection string"]);
    let nowhere = format!("postgres://me:s3cret@127.0.0.1:{}/x?sslmode=maybe", free_port());
    refused(&relay_of(&nowhere, &[]).await, 2, &["sslmode is 'maybe'", "verify-full"]);
    let dsn = postgres.dsn();
    refused(&relay_of(&dsn, &["--table", "a.b.c"]).await, 2, &["SCHEMA.NAME"]);
    refused(&relay_of(&dsn, &["--table", "nothing"]).await, 2, &["no table \"nothing\"", "--print-schema"]);
    let nothing = format!("{dsn}-nothing");
    refused(&relay_of(&nothing, &[]).await, 1, &["database \"postgres-nothing\" does not exist"]);
    refused(&relay_of(&postgres.dsn_of("nobody"), &[]).await, 1, &["nobody"]);
    database
        .batch_execute(
            "CREATE TABLE bare (id bigint, stream text); CREATE VIEW shown AS SELECT * FROM outbox;
             CREATE TABLE odd (LIKE outbox); ALTER TABLE odd ALTER id TYPE text;
             CREATE TABLE loose (LIKE outbox); ALTER TABLE loose ALTER data DROP NOT NULL;
             CREATE ROLE reader LOGIN; GRANT SELECT ON outbox TO reader",
        )
        .await
        .unwrap();
    refused(
        &relay_of(&dsn, &["--table", "bare"]).await,
        2,
        &["\"public\".\"bare\" lacks the columns data, created_at, sent_at, error"],
    );
    refused(&relay_of(&dsn, &["--table", "shown"]).await, 2, &["\"public\".\"shown\" is no table"]);
    refused(&relay_of(&dsn, &["--table", "loose"]).await, 2, &["column data", "NOT NULL"]);
    refused(&relay_of(&dsn, &["--table", "odd"]).await, 2, &["column id", "is text", "bigint"]);
    refused(
        &relay_of(&postgres.dsn_of("reader"), &[]).await,
        2,
        &["lacks UPDATE, DELETE on the table \"public\".\"outbox\""],
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&relay_of(&dsn, &["--metrics-listen", &address]).await, 2, &["--metrics-listen", &address]);
}

#[tokio::test]
async fn a_table_of_any_name_is_created_as_printed_and_drained() {
    let (postgres, node) = (Postgres::start(), Node::start(&[]));
    let database = postgres.client().await;
    database.batch_execute("CREATE SCHEMA \"Shop; DROP\"").await.unwrap();
    let table = r#""Shop; DROP"."out""box.$1""#;
    database.batch_execute(&schema(table).await).await.unwrap();
    let _relay = relay(&postgres, &node.url(), &["--table", table, "--poll-seconds", "3600"]).await;
    database.execute(&format!("INSERT INTO {table} (stream, data) VALUES ('topic:a', '7')"), &[]).await.unwrap();
    assert_eq!(listener(&node, &["topic:a"]).await.data(1).await, ["7"]);
}

#[tokio::test]
async fn a_table_without_optional_columns_index_or_trigger_is_drained() {
    let (postgres, node) = (Postgres::start(), Node::start(&[]));
    let database = postgres.client().await;
    let plain = "CREATE TABLE outbox (id serial, stream varchar(250) NOT NULL, data jsonb NOT NULL, error text,
        created_at timestamptz NOT NULL DEFAULT now(), sent_at timestamptz)";
    database.batch_execute(plain).await.unwrap();
    let _relay = relay(&postgres, &node.url(), &[]).await;
    database.batch_execute("INSERT INTO outbox (stream, data) VALUES ('topic:a', '7'), ('no', '1')").await.unwrap();
    assert_eq!(listener(&node, &["topic:a"]).await.data(1).await, ["7"]);
    rows(&database, 1).await;
}

#[tokio::test]
async fn the_connection_string_may_be_a_files_or_the_environments() {
    let ((postgres, database), node) = (database().await, Node::start(&[]));
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("dsn");
    std::fs::write(&file, format!("{}\n", postgres.dsn())).unwrap();
    let (url, file, dsn) = (node.url(), file.to_str().unwrap(), postgres.dsn());
    let arguments = ["relay", "postgres", "--url", &url];
    let named = [&arguments[..], &["--dsn-file", file]].concat();
    for (arguments, environment) in [
        (&named[..], ("WHIMBREL_POSTGRES_DSN", "host=elsewhere")),
        (&arguments, ("WHIMBREL_POSTGRES_DSN", dsn.as_str())),
        (&arguments, ("WHIMBREL_POSTGRES_DSN_FILE", file)),
    ] {
        start(arguments, &[environment]).said("draining").await;
    }
    rows(&database, 0).await;
}

#[tokio::test]
async fn over_tls_the_database_is_verified_as_its_connection_string_says() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("database");
    let [certificate, key] = ["pem", "key"].map(|end| authority.path(&format!("database.{end}")));
    let folder = tempfile::TempDir::new().unwrap();
    let (certificate, key) = crate::support::postgres::private(folder.path(), &certificate, &key);
    let settings = ["ssl=on".to_owned(), format!("ssl_cert_file={certificate}"), format!("ssl_key_file={key}")];
    let postgres = Postgres::start_with(&settings.each_ref().map(String::as_str));
    let (database, node) = (postgres.client().await, Node::start(&[]));
    database.batch_execute(&schema("outbox").await).await.unwrap();
    let by_name = postgres.dsn_by_name();
    let url = node.url();
    let with =
        |options: &str| start(&["relay", "postgres", "--url", &url, "--dsn", &format!("{by_name} {options}")], &[]);
    let trusted = format!("sslmode=verify-full sslrootcert={}", authority.file("ca.pem"));
    for options in ["", "sslmode=require", &trusted] {
        let relay = with(options);
        relay.said("draining").await;
        let encrypted =
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'whimbrel relay'";
        let encrypted = database.query(encrypted, &[]).await.unwrap();
        assert!(!encrypted.is_empty() && encrypted.iter().all(|row| row.get(0)), "{options}");
    }
    with(&format!("sslmode=verify-full sslrootcert={}", other.file("ca.pem")))
        .said("authority that is not trusted")
        .await;
    assert!(try_client(&postgres.dsn()).await.is_ok());
}
