//! Producers that write straight into Redis, with what they have: `redis-cli`, and a stock client for Python.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::ChildStdout;

use super::redis::RedisServer;
use super::{in_time, installed};

/// What `redis-cli` answers to a command, as JSON.
pub async fn redis_cli(redis: &RedisServer, command: &[&str]) -> Value {
    let port = redis.port().to_string();
    let output = tokio::process::Command::new("redis-cli").args(["-p", &port, "--json"]).args(command).output();
    let output = in_time("redis-cli", output).await.expect("redis-cli comes with redis-server");
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.trim_end().to_owned()))
}

/// A script in Python under way.
pub struct Script(tokio::process::Child);

/// The lines that a script prints, as they come.
pub type Printed = tokio::io::Lines<BufReader<ChildStdout>>;

/// Starts a script of the repository, by its path in it.
pub fn python(script: &str, arguments: &[&str]) -> Script {
    python_with(script, arguments, &[])
}

/// The same, with variables in its environment.
pub fn python_with(script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Script {
    let mut command = tokio::process::Command::new(installed("python/bin/python"));
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .args(arguments)
        .envs(environment.iter().copied())
        .kill_on_drop(true);
    Script(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

impl Script {
    /// Writes to its standard input, which ends when its end is awaited.
    pub async fn feed(&mut self, text: &str) {
        self.0.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    /// The lines that it prints from now on.
    pub fn lines(&mut self) -> Printed {
        BufReader::new(self.0.stdout.take().unwrap()).lines()
    }

    /// Kills it.
    pub async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }

    /// What it printed, and on standard error, after it ended with a failure.
    pub async fn failed(self) -> (String, String) {
        let output = in_time("the end of the script", self.0.wait_with_output()).await.unwrap();
        assert!(!output.status.success(), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// What it printed, after it ended as it should.
    pub async fn end(self) -> String {
        let output = in_time("the end of the script", self.0.wait_with_output()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
