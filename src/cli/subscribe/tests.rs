use std::pin::Pin;
use std::task::{Context, Poll};

use super::*;

fn event(data: &str) -> Box<Envelope> {
    let text = format!(
        "{{\"stream\":\"topic:a\",\"id\":\"5-1\",\"type\":\"message\",\"time\":\"2025-11-22T00:00:00Z\",\"data\":{data}}}"
    );
    serde_json::from_str(&text).unwrap()
}

fn update(data: &str, cursor: &str) -> Update {
    (Notice::Event(event(data)), Some(cursor.into()))
}

fn printer<W: AsyncWrite + Unpin>(output: W, path: PathBuf, limit: Option<u64>) -> Printer<W> {
    let kept = Some(Kept::open(path).unwrap());
    Printer { output, lines: Vec::new(), cursor: None, kept, json: false, left: limit, away: false }
}

#[test]
fn a_text_is_printed_exactly_and_other_data_as_one_line() {
    for (data, printed) in [
        (r#""a \"b\"\n ü""#, "a \"b\"\n ü"),
        (
            "{ \"a\" : [1.00,\n\t12345678901234567890 ],\"a\":\"x  \\\" y\\\\\" }",
            r#"{"a":[1.00,12345678901234567890],"a":"x  \" y\\"}"#,
        ),
        (r#""\ud800 x""#, r#""\ud800 x""#),
        ("null", "null"),
    ] {
        assert_eq!(line(&event(data), false), printed);
    }
    assert_eq!(
        line(&event("{ \"b\":\n1 }"), true),
        r#"{"stream":"topic:a","id":"5-1","type":"message","time":"2025-11-22T00:00:00Z","data":{"b":1}}"#
    );
}

#[tokio::test]
async fn the_limit_ends_the_output_and_the_cursor_stands_right_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cursor");
    let mut printer = printer(Vec::new(), path.clone(), Some(2));
    let updates = vec![update("1", "5-1"), update("2", "5-2"), update("3", "5-3")];
    assert!(printer.print(updates.into_iter()).await.unwrap() == Next::Enough);
    printer.save().unwrap();
    assert_eq!(printer.output, b"1\n2\n");
    assert_eq!(CursorFile::open(path).unwrap().saved(), Some("5-2"));
}

/// Takes nothing, as its reader is gone.
struct Gone;

impl AsyncWrite for Gone {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Err(ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_ends_it_silently_and_the_cursor_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cursor");
    let mut printer = printer(Gone, path.clone(), None);
    assert!(printer.print([update("1", "5-1")].into_iter()).await.unwrap() == Next::Enough);
    printer.save().unwrap();
    assert_eq!(CursorFile::open(path).unwrap().saved(), None);
}

#[test]
fn a_gap_is_one_line() {
    let gap = r#"{"stream":"topic:a","after":"5-1","next":"9-1","reason":"trimmed"}"#;
    let line = gap_line(&serde_json::from_str(gap).unwrap());
    assert_eq!(line, "gap in topic:a: events after 5-1 and before 9-1 are missing (trimmed)");
    let open: GapNotice =
        serde_json::from_str(r#"{"stream":"topic:a","after":"5-1","next":null,"reason":"lost"}"#).unwrap();
    assert_eq!(gap_line(&open), "gap in topic:a: events after 5-1 are missing (lost)");
}
