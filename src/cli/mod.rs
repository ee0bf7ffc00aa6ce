//! The commands. Each is a file here: its arguments, and what it does with the library.
//!
//! A command answers with an exit code, or with a [`Failure`] that `main` prints in one line.

mod bench;
mod check;
mod cursor_file;
mod export;
mod health;
mod import;
mod key;
mod log;
mod publish;
mod relay;
mod serve;
mod server;
mod shell;
mod size;
mod subscribe;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::io::{ErrorKind, Write as _, stderr, stdout};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::client::ClientError;
use crate::config::{Flags, SettingError};

const ABOUT: &str = "\
Whimbrel pushes events to devices. Programs publish events to a device or a topic over HTTP; devices \
listen over Server-Sent Events or WebSocket, and one that loses its connection resumes where it was, \
on any node, and misses nothing.";

const EXAMPLES: &str = "\
Examples:
  whimbrel                              start a node on http://127.0.0.1:8080
  whimbrel subscribe topic:news         print what is published from now on
  whimbrel publish topic:news '{\"a\":1}'         publish one event
  tail -f app.log | whimbrel publish topic:log  publish each line as it comes

Without configuration a node works alone and keeps its events in memory; with WHIMBREL_DATA_DIR also on disk. \
With WHIMBREL_REDIS_URL it is one of any number of equal nodes: see `whimbrel serve --help`.";

/// The command line.
#[derive(Parser)]
#[command(name = "whimbrel", version = env!("WHIMBREL_BUILD_VERSION"), about = ABOUT, after_help = EXAMPLES, max_term_width = 110)]
#[command(override_usage = "whimbrel [COMMAND]")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node; also what a bare `whimbrel` does
    #[command(after_help = serve::NOTES)]
    Serve(Flags),
    /// Publish one event, or one for each line of standard input
    #[command(after_help = publish::NOTES)]
    Publish(publish::Arguments),
    /// Follow streams and print their events
    #[command(after_help = subscribe::NOTES)]
    Subscribe(subscribe::Arguments),
    /// Make a device token from the configured secret
    #[command(after_help = token::NOTES)]
    Token(token::Arguments),
    /// Make a key for a producer, and its entry for the file of keys
    #[command(after_help = key::NOTES)]
    Key(key::Arguments),
    /// Print streams with their ids and positions, for another server
    #[command(after_help = export::NOTES)]
    Export(export::Arguments),
    /// Take over streams that another server exported
    #[command(after_help = import::NOTES)]
    Import(import::Arguments),
    /// Publish what a database's transactions write into an outbox table
    Relay(relay::Arguments),
    /// Measure a running server: connections, deliveries, latency
    #[command(after_help = bench::NOTES)]
    Bench(bench::Arguments),
    /// Check the configuration, and the Redis or data directory it names; or a history of what clients saw
    #[command(after_help = check::NOTES, mut_args(|arg| Flags::hide_other_than(&[], arg)))]
    Check(check::Arguments),
    /// Ask the node on this machine whether it lives, or is ready
    #[command(after_help = health::NOTES, mut_args(|arg| Flags::hide_other_than(health::SETTINGS, arg)))]
    Health(health::Arguments),
    /// Estimate what nodes and Redis take for a load
    #[command(after_help = size::NOTES)]
    Size(size::Arguments),
    /// Print what a shell needs to complete the commands
    Completions(shell::CompletionsArguments),
    /// Print the manual's page, or write one for each command
    Man(shell::ManArguments),
}

impl Cli {
    /// Reads the command line. Errors in it, and the help, are printed right here, and the
    /// process ends.
    pub fn from_process() -> Self {
        Cli::parse_from(with_command(std::env::args_os()))
    }

    /// Does what was asked.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Serve(flags) => serve::run(flags).await,
            Command::Publish(arguments) => publish::run(arguments).await,
            Command::Subscribe(arguments) => subscribe::run(arguments).await,
            Command::Token(arguments) => token::run(&arguments),
            Command::Key(arguments) => key::run(&arguments),
            Command::Export(arguments) => export::run(arguments).await,
            Command::Import(arguments) => import::run(arguments).await,
            Command::Relay(arguments) => relay::run(arguments).await,
            Command::Bench(arguments) => bench::run(arguments).await,
            Command::Check(arguments) => check::run(arguments).await,
            Command::Health(arguments) => health::run(arguments).await,
            Command::Size(arguments) => size::run(&arguments),
            Command::Completions(arguments) => shell::completions(&arguments),
            Command::Man(arguments) => shell::man(&arguments),
        }
    }
}

/// A bare `whimbrel`, or one with only settings, is `whimbrel serve`.
fn with_command(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let bare = match arguments.get(1).map(|first| first.to_string_lossy()) {
        None => true,
        Some(first) => first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&&*first),
    };
    if bare {
        arguments.insert(arguments.len().min(1), "serve".into());
    }
    arguments
}

/// Why a command failed: one line for people, and the exit code.
#[derive(Debug)]
pub struct Failure {
    line: String,
    code: u8,
}

impl Failure {
    /// It was asked for in a way that can't work: exit code 2.
    fn usage(line: impl fmt::Display) -> Self {
        Failure { line: line.to_string(), code: 2 }
    }

    /// It did not work: exit code 1.
    fn failed(line: impl fmt::Display) -> Self {
        Failure { line: line.to_string(), code: 1 }
    }

    /// Prints it, once; the exit code is what `main` ends with.
    pub fn report(&self) -> ExitCode {
        say(&self.line);
        self.code.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.line))
    }
}

/// Prints a line of the result.
fn print(line: impl fmt::Display) -> Result<(), Failure> {
    match writeln!(stdout(), "{line}") {
        // The reader has seen enough, as `head` does.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("the output can't be written: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints a message for people, which is no result, in one line on standard error.
fn say(line: &str) {
    // Where standard error is closed, the message is lost.
    let _ = writeln!(stderr(), "whimbrel: {}", plain(line));
}

/// A server's words may hold line ends and terminal codes; they are printed as one plain line.
fn plain(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::failed(error)
    }
}

impl From<SettingError> for Failure {
    fn from(error: SettingError) -> Self {
        Failure::usage(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Address(_) | ClientError::Request(_) => Failure::usage(error),
            _ => Failure::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bare_start_with_or_without_settings_serves() {
        let read = |line: &[&str]| Cli::try_parse_from(with_command(line.iter().map(OsString::from)));
        for line in [&["whimbrel"][..], &["whimbrel", "--insecure"], &["whimbrel", "serve", "--lease-seconds", "3"]] {
            assert!(matches!(read(line).map(|cli| cli.command), Ok(Command::Serve(_))), "{line:?}");
        }
        for line in [&["whimbrel", "--help"][..], &["whimbrel", "-V"], &["whimbrel", "bogus"], &["whimbrel", "--bogus"]]
        {
            assert!(read(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_failure_is_one_plain_line() {
        assert_eq!(Failure::failed("a\nb\u{1b}[31mc").to_string(), "a b [31mc");
    }
}
