//! What tests share.

pub mod backend;
pub mod balancer;
pub mod chunks;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod command;
pub mod http;
pub mod javascript;
pub mod node;
pub mod postgres;
pub mod producers;
pub mod proxy;
pub mod receiver;
pub mod redis;
pub mod secrets;
pub mod sentinel;
pub mod serve;
mod sse;
pub mod stores;
pub mod tls;
pub mod token;
mod wanted;
pub mod websocket;
pub mod world;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
pub use websocket::frame;

/// Longer than anything should take on a busy machine; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a process a signal.
pub fn send(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until `probe` gives a value; panics with `what` was waited for when it never does.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The same without a runtime, or on a thread that may block.
#[expect(clippy::disallowed_methods, reason = "it blocks its caller, as its name says")]
pub fn blocking_eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What `future` gives; panics with `what` was waited for when it takes too long.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("took too long: {what}"))
}

/// Where something is that scripts/test installs for the tests.
pub fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(name);
    assert!(path.exists(), "scripts/test installs {name}");
    path
}

/// Bytes of a process in memory.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A port on which nobody listens.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
