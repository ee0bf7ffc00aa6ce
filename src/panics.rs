//! Panics are bugs. Each is one line of the log and counts, wherever it happens.

use std::backtrace::Backtrace;
use std::panic::{self, PanicHookInfo};

use prometheus_client::metrics::counter::Counter;

/// From now on every panic of this process is logged, at the level of errors, and counted. With `RUST_BACKTRACE=1`
/// the level debug has where it came from.
pub fn report(count: Counter) {
    panic::set_hook(Box::new(move |panicked| {
        count.inc();
        tracing::error!("{}", line(panicked));
        tracing::debug!(backtrace = %Backtrace::capture(), "of the panic above");
    }));
}

fn line(panicked: &PanicHookInfo<'_>) -> String {
    let what = panicked.payload_as_str().unwrap_or("no message").replace(['\n', '\r'], " ");
    match panicked.location() {
        Some(place) => format!("panicked at {}:{}: {what}", place.file(), place.line()),
        None => format!("panicked: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "WHIMBREL_TEST_PANICS";

    /// What [`report`] does is done to the whole process, so this runs in one of its own.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the child has nothing to finish")]
    async fn a_panic_is_one_line_of_the_log_and_counts() {
        if std::env::var_os(CHILD).is_some() {
            let count = Counter::default();
            tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
            report(count.clone());
            tokio::spawn(async { panic!("two\nlines") }).await.unwrap_err();
            std::process::exit(count.get() as i32);
        }
        let test = "panics::tests::a_panic_is_one_line_of_the_log_and_counts";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "one was counted: {output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert!(lines.len() == 1 && lines[0].contains("ERROR"), "{log}");
        assert!(lines[0].contains("panicked at src/panics.rs:") && lines[0].ends_with("two lines"), "{log}");
    }
}
