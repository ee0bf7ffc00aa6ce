//! A worker holds listeners: in this process, or in a child process that has descriptors of its own.
//!
//! A child reads its target and then orders from its standard input, a line of JSON each, and writes its
//! answers to its standard output. It ends when its input does, whatever it is doing, so none is left
//! behind when the parent dies.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use super::listeners::{Listeners, Order, Reply};
use super::{BenchError, Target};

/// How often a child reports its progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// A line of a child.
#[derive(Serialize, Deserialize)]
enum Line {
    Done(u64),
    Reply(Reply),
}

/// A process that carries out orders.
pub enum Worker {
    /// In this process.
    Here(Box<Listeners>),
    /// In a process of its own; killed when dropped.
    There { _process: Box<Child>, input: ChildStdin, output: Lines<BufReader<ChildStdout>> },
}

impl Worker {
    pub fn here(target: Target) -> Self {
        Worker::Here(Box::new(Listeners::new(target)))
    }

    /// Starts a child.
    pub async fn there(target: &Target) -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::Child)?;
        let mut process = Command::new(program)
            .args(["bench", "--worker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::Child)?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            unreachable!("both are pipes")
        };
        let mut worker = Worker::There { _process: Box::new(process), input, output: BufReader::new(output).lines() };
        worker.say(target).await?;
        Ok(worker)
    }

    /// Has an order carried out; `done` grows meanwhile.
    pub async fn order(&mut self, order: Order, done: &AtomicU64) -> Result<Reply, BenchError> {
        let answer = match self {
            Worker::Here(listeners) => listeners.carry_out(order, done).await,
            Worker::There { .. } => {
                self.say(&order).await?;
                loop {
                    match self.read_line().await? {
                        Line::Done(count) => done.store(count, Ordering::Relaxed),
                        Line::Reply(answer) => break answer,
                    }
                }
            }
        };
        match answer {
            Reply::Failed(reason) => Err(BenchError::Listeners(reason)),
            answer => Ok(answer),
        }
    }

    async fn say(&mut self, what: &impl Serialize) -> Result<(), BenchError> {
        let Worker::There { input, .. } = self else { return Ok(()) };
        let line = serde_json::to_string(what).expect("it holds only numbers and names") + "\n";
        input.write_all(line.as_bytes()).await.map_err(BenchError::Child)
    }

    async fn read_line(&mut self) -> Result<Line, BenchError> {
        let Worker::There { output, .. } = self else { unreachable!("only a child has lines") };
        let line = output.next_line().await.map_err(BenchError::Child)?;
        let line = line.ok_or_else(|| BenchError::Child(std::io::ErrorKind::UnexpectedEof.into()))?;
        serde_json::from_str(&line).map_err(|error| BenchError::Child(error.into()))
    }
}

/// What a child process does: orders from standard input, until that ends.
pub async fn serve() -> std::io::Result<()> {
    let (sender, mut lines) = mpsc::channel::<String>(1);
    let reading = async move {
        let mut input = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = input.next_line().await {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    };
    let working = async {
        let mut output = tokio::io::stdout();
        let mut report = async |line: Line| {
            let text = serde_json::to_string(&line).expect("it holds only numbers and names") + "\n";
            output.write_all(text.as_bytes()).await?;
            output.flush().await
        };
        let Some(target) = lines.recv().await else { return Ok(()) };
        let mut listeners = Listeners::new(serde_json::from_str(&target)?);
        while let Some(order) = lines.recv().await {
            let done = Arc::new(AtomicU64::new(0));
            let working = listeners.carry_out(serde_json::from_str(&order)?, &done);
            tokio::pin!(working);
            let answer = loop {
                tokio::select! {
                    answer = &mut working => break answer,
                    () = tokio::time::sleep(REPORT_EVERY) => report(Line::Done(done.load(Ordering::Relaxed))).await?,
                }
            };
            report(Line::Reply(answer)).await?;
        }
        Ok(())
    };
    tokio::select! {
        () = reading => Ok(()),
        outcome = working => outcome,
    }
}
