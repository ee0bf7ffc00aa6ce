//! Nodes: the real program, as processes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use super::http::{Answer, Http};
use super::redis::RedisServer;
use super::{PATIENCE, Signal, eventually, secrets, send};

/// The program, without the settings of the shell that runs the tests.
pub fn program() -> Command {
    program_by(env!("CARGO_BIN_EXE_whimbrel"))
}

fn program_by(starter: &str) -> Command {
    let mut command = Command::new(starter);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHIMBREL_")) {
        command.env_remove(name);
    }
    command
}

/// A node of one test, killed when dropped. Its log is printed when the test fails.
pub struct Node {
    process: Mutex<Child>,
    pid: u32,
    address: SocketAddr,
    log: Arc<Log>,
    /// What its log must not show.
    secrets: Vec<String>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Node {
    /// A node on the embedded store, with these settings.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Node::run(program(), settings)
    }

    /// A node on the embedded store that may have so many descriptors and no more.
    pub fn start_with_descriptors(most: usize, settings: &[(&str, &str)]) -> Self {
        Node::start_after(&format!("ulimit -n {most}"), settings)
    }

    /// A node on the embedded store that a shell starts after this.
    pub fn start_after(commands: &str, settings: &[(&str, &str)]) -> Self {
        let mut command = program_by("sh");
        command.arg("-c").arg(format!("{commands}; exec '{}'", env!("CARGO_BIN_EXE_whimbrel")));
        Node::run(command, settings)
    }

    fn run(command: Command, settings: &[(&str, &str)]) -> Self {
        // Made first, so that a node that never listens is killed and shows its log.
        let mut node = Node::spawn(command, settings);
        node.address = node.wait_for_address();
        node
    }

    fn spawn(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let mut process = command
            .env("WHIMBREL_LISTEN", "127.0.0.1:0")
            .env("WHIMBREL_LOG", "info,whimbrel=debug")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let (stderr, keep) = (process.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                keep.lines.lock().push(line);
                keep.more.notify_all();
            }
        });
        let pid = process.id();
        let address = ([127, 0, 0, 1], 0).into();
        Node { process: Mutex::new(process), pid, address, log, secrets: secrets::of(settings) }
    }

    /// A node that does not get as far as to listen for what it is for: its store lets it wait.
    pub fn start_waiting(settings: &[(&str, &str)]) -> Self {
        Node::spawn(program(), settings)
    }

    /// A node on this Redis, with these settings.
    pub fn on(redis: &RedisServer, settings: &[(&str, &str)]) -> Self {
        let url = redis.url();
        let mut all = vec![("WHIMBREL_REDIS_URL", url.as_str())];
        all.extend_from_slice(settings);
        Node::start(&all)
    }

    fn wait_for_address(&self) -> SocketAddr {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock();
        loop {
            let address = lines.iter().find_map(|line| {
                let (_, rest) = line.split_once(" on http://").or_else(|| line.split_once(" on https://"))?;
                rest.split_whitespace().next()?.parse().ok()
            });
            if let Some(address) = address {
                return address;
            }
            let late = self.log.more.wait_until(&mut lines, deadline).timed_out();
            assert!(!late, "the node never listened: {lines:#?}");
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for operators.
    pub fn admin_address(&self) -> SocketAddr {
        let log = self.log();
        let (_, rest) = log.split_once("listening for operators on http://").expect("it listens for operators");
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Where it listens for links.
    pub fn link_address(&self) -> SocketAddr {
        let log = self.log();
        let (_, rest) = log.split_once("links are on: listening on ").expect("its links are on");
        rest.split(',').next().unwrap().parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().join("\n")
    }

    /// Kills it as a power failure would.
    pub fn kill(&self) {
        let mut process = self.process.lock();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&self) -> ExitStatus {
        eventually("the end of the node", async || self.process.lock().try_wait().unwrap()).await
    }

    /// A request on a connection of its own.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        Http::connect(self.address).await.call(method, path, headers, body.as_ref()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "").await
    }

    pub async fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Publishes one event, and returns its id.
    pub async fn publish(&self, stream: &str, data: &str) -> String {
        self.call("POST", &events_path(stream), &[], data).await.id()
    }

    /// Publishes one event with parameters, such as `ttl=5`, and returns its id.
    pub async fn publish_with(&self, stream: &str, parameters: &str, data: &str) -> String {
        self.call("POST", &format!("{}?{parameters}", events_path(stream)), &[], data).await.id()
    }

    /// The data of the events that a stream's history shows.
    pub async fn history(&self, stream: &str) -> Vec<String> {
        let history = self.get_json(&format!("{}?limit=1000", events_path(stream))).await;
        history["events"].as_array().unwrap().iter().map(|event| event["data"].to_string()).collect()
    }

    /// Publishes events in one batch, and returns their ids.
    pub async fn publish_all<D: std::fmt::Display>(
        &self,
        stream: &str,
        data: impl IntoIterator<Item = D>,
    ) -> Vec<String> {
        let mut http = Http::connect(self.address).await;
        publish_batch(&mut http, stream, data).await
    }

    /// A figure of `/metrics`, by its name with labels and without the prefix. One that is not there is 0.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await;
        figure(text.text(), name).unwrap_or(0.0)
    }

    /// The same, on a node that shows its figures to this key.
    pub async fn metric_for(&self, key: &str, name: &str) -> f64 {
        let header = format!("Bearer {key}");
        let answer = self.call("GET", "/metrics", &[("Authorization", &header)], "").await;
        figure(answer.text(), name).unwrap_or_default()
    }

    /// Waits until a figure that is shown to this key is `wanted`.
    pub async fn metric_is_for(&self, key: &str, name: &str, wanted: f64) {
        let what = format!("{name} is {wanted}");
        eventually(&what, async || (self.metric_for(key, name).await == wanted).then_some(())).await;
    }

    /// Waits until a figure is `wanted`.
    pub async fn metric_is(&self, name: &str, wanted: f64) {
        let what = format!("{name} is {wanted}");
        eventually(&what, async || (self.metric(name).await == wanted).then_some(())).await;
    }

    /// Its id.
    pub async fn id(&self) -> String {
        self.get("/health/ready").await.json()["node"].as_str().unwrap().to_owned()
    }
}

fn figure(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let (given, value) = line.strip_prefix("whimbrel_")?.rsplit_once(' ')?;
        (given == name).then(|| value.parse().unwrap())
    })
}

impl Drop for Node {
    fn drop(&mut self) {
        let process = self.process.get_mut();
        let _ = process.kill();
        let _ = process.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of node {} ---\n{}", self.address, self.log());
        } else {
            let log = self.log();
            no_panic_in(&log);
            secrets::none_in(&log, &self.secrets);
        }
    }
}

/// Whatever a test is about: a panic of the program is a bug, even where everything else went well.
#[track_caller]
pub fn no_panic_in(output: &str) {
    let panicked = output.lines().find(|line| line.contains("panicked at "));
    assert!(panicked.is_none(), "the program panicked: {}\n{output}", panicked.unwrap_or_default());
}

/// Publishes a batch over a connection that is open, and returns the ids.
pub async fn publish_batch<D: std::fmt::Display>(
    http: &mut Http,
    stream: &str,
    data: impl IntoIterator<Item = D>,
) -> Vec<String> {
    let (kind, name) = stream.split_once(':').unwrap();
    let entries: Vec<String> = data.into_iter().map(|data| format!(r#"{{"{kind}":"{name}","data":{data}}}"#)).collect();
    let body = format!("[{}]", entries.join(","));
    let answer = http.call("POST", "/v1/events", &[], body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results = answer.json()["results"].as_array().unwrap().clone();
    results.iter().map(|result| result["id"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()).collect()
}

/// Where the events of `device:x` or `topic:x` are.
pub fn events_path(stream: &str) -> String {
    let (kind, name) = stream.split_once(':').unwrap();
    format!("/v1/{kind}s/{name}/events")
}
