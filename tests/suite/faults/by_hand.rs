//! `whimbrel check --history`: the checker, on any history.

use super::recorder::Recorder;
use crate::support::command;

/// One publish, and what a client got of it.
fn history(name: &str, got: &[&str]) -> String {
    let recorder = Recorder::default();
    let mut lines = vec![
        r#"{"record":"session","session":1,"client":"c","streams":["topic:a"]}"#.to_owned(),
        r#"{"record":"position","session":1,"at":"4-1"}"#.to_owned(),
        r#"{"record":"publish","producer":"p","sequence":1,"stream":"topic:a","stream_sequence":1,"payload":"x"}"#
            .to_owned(),
        r#"{"record":"outcome","producer":"p","sequence":1,"outcome":"ok","id":"5-1"}"#.to_owned(),
    ];
    lines.extend(got.iter().map(|id| {
        format!(r#"{{"record":"event","session":1,"stream":"topic:a","id":"{id}","payload":"x","cursor":"{id}"}}"#)
    }));
    lines.push(r#"{"record":"quiet"}"#.to_owned());
    for record in whimbrel::history::read(lines.join("\n").as_bytes()).unwrap() {
        recorder.note(record);
    }
    recorder.save(name).display().to_string()
}

#[tokio::test]
async fn a_history_is_judged_line_by_line() {
    let sound = command::run(&["check", "--history", &history("sound", &["5-1"])], &[], b"").await;
    assert_eq!(sound.code, Some(0), "{sound:?}");
    assert_eq!(
        sound.stdout,
        "1 publishes (1 ok, 0 failed, 0 unknown), 1 events and 0 gap notices received in 1 sessions of 1 clients, \
         1 of them to the end; violations: 0\n"
    );
    let missed = command::run(&["check", "--history", &history("missed", &[])], &[], b"").await;
    assert_eq!(missed.code, Some(1), "{missed:?}");
    assert!(missed.stdout.starts_with("c: read topic:a to the end, but never saw 5-1\n"), "{missed:?}");
    assert!(missed.stdout.ends_with("; violations: 1\n"), "{missed:?}");
    let nothing = command::run(&["check", "--history", "/nowhere"], &[], b"").await;
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
}
