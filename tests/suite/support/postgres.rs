//! Private PostgreSQL servers.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::{Signal, blocking_eventually, eventually, free_port, send};

/// The user `nobody`, as PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// A server of one test, stopped when dropped. Everybody on this machine may do anything, over TCP only.
pub struct Postgres {
    port: u16,
    folder: TempDir,
    options: Vec<String>,
    process: Child,
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more settings, such as `ssl=on`.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        copy(&template(), &folder.path().join("data"));
        let options: Vec<String> =
            settings.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]).collect();
        // A port that is free now may be taken by the time the server binds it: then try another.
        for _ in 0..20 {
            let port = free_port();
            if let Some(process) = launch(port, folder.path(), &options) {
                return Postgres { port, folder, options, process };
            }
        }
        panic!("no postgres came up: {}", fs::read_to_string(folder.path().join("log")).unwrap());
    }

    /// Where its database `postgres` is.
    pub fn dsn(&self) -> String {
        self.dsn_of("postgres")
    }

    /// The same for a user.
    pub fn dsn_of(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// Where it is by name, for TLS.
    pub fn dsn_by_name(&self) -> String {
        format!("host=localhost port={} user=postgres dbname=postgres", self.port)
    }

    /// A connection of the test's own.
    pub async fn client(&self) -> Client {
        eventually("a connection to PostgreSQL", async || self.try_client().await.ok()).await
    }

    pub async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        try_client(&self.dsn()).await
    }

    /// Kills it as a power failure would.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same port, with the data that it had.
    pub fn revive(&mut self) {
        // Until the last process of the one before is gone, its memory is in use.
        self.process = blocking_eventually("postgres is back", || launch(self.port, self.folder.path(), &self.options));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, but with all of its processes.
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            send(self.process.id(), Signal::QUIT);
        }
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- the log of PostgreSQL ---\n{log}");
        }
    }
}

pub async fn try_client(dsn: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A program of PostgreSQL: Debian has them off the PATH.
fn program(name: &str) -> PathBuf {
    let folders = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let mut folders: Vec<_> = folders.map(|folder| folder.path().join("bin")).collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = folders.into_iter().rev().chain(std::env::split_paths(&path));
    all.map(|folder| folder.join(name)).find(|path| path.exists()).expect("scripts/test installs postgresql")
}

/// A command, as nobody where this is root.
fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(program(name));
    command.current_dir(folder).env("LC_ALL", "C");
    if rustix::process::geteuid().is_root() {
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// A database cluster that is made once for all tests.
fn template() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock();
    let version = Command::new(program("postgres")).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap().split(' ').nth(2).unwrap().trim().to_owned();
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/tools/postgres-{version}"));
    if !template.exists() {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut initdb = command("initdb", folder.path());
        let made =
            initdb.args(["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Whole or not at all, and as good if another process of tests was faster.
        let part = template.with_extension(std::process::id().to_string());
        copy(&folder.path().join("data"), &part);
        if fs::rename(&part, &template).is_err() {
            fs::remove_dir_all(&part).unwrap();
        }
    }
    template
}

/// Copies a folder with its owners and rights.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// `None`: it ended before it was ready, for its port or for one that still runs.
fn launch(port: u16, folder: &Path, options: &[String]) -> Option<Child> {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut postgres = command("postgres", folder);
    let settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "shared_buffers=16MB"];
    postgres.args(["-D", "data", "-p", &port.to_string()]).args(settings.iter().flat_map(|setting| ["-c", setting]));
    let mut process = postgres.args(options).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let is_ready = |pid: u32| {
        let file = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines();
        lines.next() == Some(&pid.to_string()) && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    };
    blocking_eventually("postgres is ready, or has ended", || {
        (is_ready(process.id()) || process.try_wait().unwrap().is_some()).then_some(())
    });
    process.try_wait().unwrap().is_none().then_some(process)
}

/// Copies of a certificate and its key that a server may read and nobody else, in a folder.
pub fn private(folder: &Path, certificate: &Path, key: &Path) -> (String, String) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let copied = [certificate, key].map(|from| {
        let to = folder.join(from.file_name().unwrap());
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&to, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        to.to_str().unwrap().to_owned()
    });
    copied.into()
}
