//! The program's commands, run as people run them.

use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};
use tokio::task::JoinHandle;

use super::node::{no_panic_in, program};
use super::{Signal, eventually, in_time, send};

/// What a command left behind.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A command at work, killed when dropped.
pub struct Running {
    process: Child,
    pid: u32,
    stdin: Option<ChildStdin>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: [JoinHandle<()>; 2],
}

/// Starts a command; its standard input is a pipe.
pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Running {
    let mut command = tokio::process::Command::from(program());
    command.args(arguments).envs(environment.iter().copied()).kill_on_drop(true);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (Arc::default(), Arc::default());
    let readers = [
        tokio::spawn(keep(process.stdout.take().unwrap(), Arc::clone(&stdout))),
        tokio::spawn(keep(process.stderr.take().unwrap(), Arc::clone(&stderr))),
    ];
    Running { pid: process.id().unwrap(), stdin: process.stdin.take(), process, stdout, stderr, readers }
}

/// Runs a command to its end with this standard input.
pub async fn run(arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Outcome {
    let mut running = start(arguments, environment);
    running.write(input).await;
    running.end().await
}

async fn keep(mut output: impl AsyncRead + Unpin, kept: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 65536];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        kept.lock().extend_from_slice(&buffer[..count]);
    }
}

impl Running {
    /// Gives it more input. A command that reads no more is its own affair.
    pub async fn write(&mut self, input: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        let _ = in_time("the command to read its input", stdin.write_all(input)).await;
        let _ = stdin.flush().await;
    }

    /// Waits until it has printed so many bytes.
    pub async fn printed(&self, bytes: usize) {
        let what = format!("{bytes} bytes of output");
        eventually(&what, async || (self.stdout.lock().len() >= bytes).then_some(())).await;
    }

    /// Waits until it has printed something on standard error.
    pub async fn said(&self, words: &str) {
        let said = async || String::from_utf8_lossy(&self.stderr.lock()).contains(words).then_some(());
        eventually(&format!("'{words}' on standard error"), said).await;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Ends its input and waits for its end.
    pub async fn end(mut self) -> Outcome {
        drop(self.stdin.take());
        let status = in_time("the end of the command", self.process.wait()).await.unwrap();
        for reader in &mut self.readers {
            in_time("the end of its output", reader).await.unwrap();
        }
        let text = |kept: &Mutex<Vec<u8>>| String::from_utf8_lossy(&kept.lock()).into_owned();
        let outcome = Outcome { code: status.code(), stdout: text(&self.stdout), stderr: text(&self.stderr) };
        no_panic_in(&outcome.stderr);
        outcome
    }
}
