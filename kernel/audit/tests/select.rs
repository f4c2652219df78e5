//! Selection and export from the files of a log.

mod common;

use std::fs;
use std::io;
use std::path::PathBuf;

use common::{TestClock, append, log_key, options, origin};
use openfang_audit::export::{ExportError, Format, export};
use openfang_audit::read::{Filter, Kinds, select};
use openfang_audit::verify::{Source, Verdict};
use openfang_audit::{Call, Event, Log, Options, Outcome, UnknownKind};
use openfang_id::{AgentId, AgentKey, VerifyingKey};
use tempfile::TempDir;

struct Files {
    _root: TempDir,
    log_path: PathBuf,
    dir: PathBuf,
    key: VerifyingKey,
    origin: openfang_audit::Origin,
}

impl Files {
    fn source(&self) -> Source<'_> {
        Source {
            log_path: &self.log_path,
            dir: &self.dir,
            key: &self.key,
            origin: &self.origin,
        }
    }

    fn seqs(&self, filter: &Filter) -> Vec<u64> {
        let selection = select(self.source(), filter).expect("readable");
        assert!(matches!(selection.report.verdict, Verdict::Intact { .. }));
        assert_eq!(selection.unreadable, 0);
        selection.lines.iter().map(|line| line.seq.0).collect()
    }
}

fn agent(number: u8) -> AgentId {
    AgentId::from_bytes([number; 16])
}

/// Two agents were called `researcher`, one after the other, and one `writer`.
fn files() -> Files {
    let root = TempDir::new().expect("a directory");
    let (log, _) = Log::open(options(root.path()), TestClock::fast()).expect("a log");
    let name = |text: &str| text.parse().expect("a name");
    let tool = |id: AgentId| {
        Event::tool_invoke(Call {
            agent: id,
            target: "system_time".into(),
            user: "cli".into(),
            session: None,
            cause: None,
            outcome: Outcome::Ok,
            duration: None,
        })
    };
    let events = [
        Event::node_start("0.1.0"),
        Event::agent_create(&agent(1), &name("researcher"), "cli"),
        tool(agent(1)),
        Event::agent_create(&agent(2), &name("writer"), "cli"),
        tool(agent(2)),
        Event::auth_failed("api", "192.0.2.1", "wrong key"),
        Event::agent_delete(&agent(1), &name("researcher"), "cli"),
        Event::agent_create(&agent(3), &name("researcher"), "cli"),
        tool(agent(3)),
        Event::api_key("192.0.2.1", "GET /api/agents"),
    ];
    for event in events {
        append(&log, event).expect("appended");
    }
    log.close().expect("closed");
    let Options { log_path, dir, .. } = options(root.path());
    Files {
        _root: root,
        log_path,
        dir,
        key: log_key(),
        origin: origin(),
    }
}

#[test]
fn entries_are_chosen_by_agent_kind_time_and_number() {
    let files = files();
    let all = Filter::default();
    assert_eq!(files.seqs(&all), (0..10).collect::<Vec<_>>());
    let named = |text: &str| Filter {
        agent: Some(text.parse::<AgentKey>().expect("a key")),
        ..Filter::default()
    };
    assert_eq!(files.seqs(&named("researcher")), [1, 2, 6, 7, 8]);
    assert_eq!(files.seqs(&named("writer")), [3, 4]);
    assert!(files.seqs(&named("nobody")).is_empty());
    assert_eq!(files.seqs(&named(&agent(3).to_string())), [7, 8]);
    let of_kind = |text: &str| Filter {
        kinds: text.parse::<Kinds>().expect("kinds"),
        ..Filter::default()
    };
    assert_eq!(files.seqs(&of_kind("auth_failed")), [5]);
    assert_eq!(files.seqs(&of_kind("auth_failed|api_key")), [5, 9]);
    assert_eq!(files.seqs(&of_kind("api_key,node_start")), [0, 9]);
    assert_eq!("auth_fail".parse::<Kinds>(), Err(UnknownKind));
    let last = Filter {
        limit: Some(3),
        ..Filter::default()
    };
    assert_eq!(files.seqs(&last), [7, 8, 9]);
    let last_of_agent = Filter {
        limit: Some(2),
        ..named("researcher")
    };
    assert_eq!(files.seqs(&last_of_agent), [7, 8]);
    let none = Filter {
        limit: Some(0),
        ..Filter::default()
    };
    assert!(files.seqs(&none).is_empty());

    let selection = select(files.source(), &all).expect("readable");
    let ts = &selection.lines[4].ts;
    let since = (0..)
        .map(|second| common::START_MICROS + second * 1_000_000)
        .find(|micros| openfang_audit::rfc3339(*micros) == *ts)
        .expect("the clock of the test moves by seconds");
    let later = |since| Filter {
        since_unix_micros: Some(since),
        ..Filter::default()
    };
    assert_eq!(files.seqs(&later(since)), (4..10).collect::<Vec<_>>());
    assert_eq!(files.seqs(&later(since + 1)), (5..10).collect::<Vec<_>>());
}

#[test]
fn an_export_is_verbatim() {
    let files = files();
    let text = fs::read_to_string(&files.log_path).expect("a log");
    let mut jsonl = Vec::new();
    let report = export(files.source(), Format::Jsonl, &mut jsonl).expect("written");
    assert!(matches!(
        report.verdict,
        Verdict::Intact { entries: 10, .. }
    ));
    assert_eq!(String::from_utf8(jsonl).expect("text"), text);

    let mut json = Vec::new();
    export(files.source(), Format::Json, &mut json).expect("written");
    let json = String::from_utf8(json).expect("text");
    assert_eq!(
        json,
        format!("[\n{}\n]\n", text.trim_end().replace('\n', ",\n"))
    );
    let array: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(array.as_array().map(Vec::len), Some(10));
}

#[test]
fn an_export_of_a_tampered_log_is_still_json_and_says_so() {
    let files = files();
    let text = fs::read_to_string(&files.log_path).expect("a log");
    fs::write(&files.log_path, text.replacen("{\"", "\"", 1)).expect("written");
    let mut json = Vec::new();
    let report = export(files.source(), Format::Json, &mut json).expect("written");
    assert!(matches!(
        report.verdict,
        Verdict::Tampered {
            first_bad_seq: Some(0),
            ..
        }
    ));
    let array: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert!(array[0].is_string() && array[1].is_object());
    let selection = select(files.source(), &Filter::default()).expect("readable");
    assert_eq!((selection.lines.len(), selection.unreadable), (9, 1));
}

#[test]
fn an_export_of_nothing_and_an_output_that_fails() {
    let files = files();
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [Format::Json, Format::Jsonl] {
        let failed = export(files.source(), format, &mut Full);
        assert!(
            matches!(&failed, Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::StorageFull),
            "{failed:?}"
        );
    }
    let nowhere = TempDir::new().expect("a directory");
    let empty = Source {
        log_path: &nowhere.path().join("audit.jsonl"),
        dir: nowhere.path(),
        ..files.source()
    };
    let mut json = Vec::new();
    let report = export(empty, Format::Json, &mut json).expect("written");
    assert_eq!(
        (report.verdict, json.as_slice()),
        (Verdict::Empty, &b"[]\n"[..])
    );
    assert_eq!(
        "yaml".parse::<Format>(),
        Err(openfang_audit::export::UnknownFormat)
    );
}
