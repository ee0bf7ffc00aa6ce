//! `whimbrel export`: streams with all that cursors rest on, for another store.

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use crate::model::StreamName;

use super::server::Target;
use super::{Failure, say};

pub const NOTES: &str = "\
Prints each stream in parts, one JSON object a line, each with some events, their ids and where the stream stands \
then. `whimbrel import` takes them to another server. Needs the scope admin where access is closed.

Stop producers first: what is published while a stream is read may come too late for the file.

Example:
  whimbrel export device:42 topic:news > streams.ndjson
  whimbrel import --url http://other:8080 < streams.ndjson";

#[derive(clap::Args)]
pub struct Arguments {
    /// Streams: device:NAME or topic:NAME
    #[arg(required = true, value_name = "STREAM")]
    streams: Vec<StreamName>,
    #[command(flatten)]
    server: Target,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let server = arguments.server.publisher()?;
    let mut events = 0;
    for stream in &arguments.streams {
        let mut after = None;
        loop {
            let part = server.export(stream, after.as_deref()).await?;
            let cannot = |error| Failure::failed(format!("the output can't be written: {error}"));
            writeln!(stdout(), "{}", part.json).map_err(cannot)?;
            events += part.events;
            if !part.more {
                break;
            }
            after = Some(part.last);
        }
    }
    say(&format!("exported {events} events of {} streams", arguments.streams.len()));
    Ok(ExitCode::SUCCESS)
}
