//! `whimbrel import`: takes streams over that another server exported.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::client::ClientError;

use super::server::Target;
use super::{Failure, say};

pub const NOTES: &str = "\
Reads what `whimbrel export` printed. Events keep their ids, times, types and order, and devices what they \
acknowledged, so that cursors of the old server are good on the new one. Streams have to be unused there, also by \
subscribers: move those afterwards. An import that was interrupted can be repeated: what is there already is left as \
it is. Needs the scope admin where access is closed.";

#[derive(clap::Args)]
pub struct Arguments {
    /// The file; standard input when left out
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    server: Target,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let server = arguments.server.publisher()?;
    let input: Box<dyn BufRead> = match &arguments.file {
        None => Box::new(BufReader::new(stdin())),
        Some(path) => {
            let file = File::open(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            Box::new(BufReader::new(file))
        }
    };
    let (mut events, mut streams) = (0, BTreeSet::new());
    for (number, line) in input.lines().enumerate() {
        let at = |error: ClientError| Failure::failed(format!("line {}: {error}", number + 1));
        let line = line.map_err(|error| Failure::failed(format!("line {}: {error}", number + 1)))?;
        let part = server.import(line).await.map_err(at)?;
        events += part.events;
        streams.insert(part.stream);
    }
    say(&format!("imported {events} events of {} streams", streams.len()));
    Ok(ExitCode::SUCCESS)
}
