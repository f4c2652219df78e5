//! `openfang audit`: the log of this node, read from its files whether the node runs or not.

mod witness;

use std::io;
use std::path::PathBuf;

use openfang_audit::export::{self, ExportError};
use openfang_audit::read::{self, Filter, Kinds};
use openfang_audit::verify::{self, DamageKind, Report, Source, Verdict};
use openfang_audit::{Kind, Line, Origin};
use openfang_id::{AgentKey, VerifyingKey};
use openfang_schema::path;
use serde_json::json;

use crate::args::{Audit, Format, Show};
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// Runs a command of the group.
pub(crate) fn run(command: Audit, context: &Context) -> Result<Exit, Failure> {
    let files = || Files::of(context);
    match command {
        Audit::Verify(json) => verify_all(&files()?, json.json),
        Audit::Show(show) => show_some(&files()?, &show, context),
        Audit::Export { format } => export_all(&files()?, format),
        Audit::Witness(command) => witness::run(&command, context),
    }
}

/// The files of the log and what they are checked against.
struct Files {
    log_path: PathBuf,
    dir: PathBuf,
    key: VerifyingKey,
    origin: Origin,
    /// Whether a log was ever begun.
    begun: bool,
}

impl Files {
    fn of(context: &Context) -> Result<Self, Failure> {
        let config = context.config()?;
        let keys = openfang_node::keys::load(&context.home.node_key())
            .map_err(|why| Failure::new(Exit::Usage, why.to_string()))?
            .keys();
        let number = |why| {
            let path = context.home.audit_epoch();
            Failure::new(
                Exit::Failure,
                format!("cannot read {}: {why}", path.display()),
            )
        };
        let epoch = openfang_node::audit_epoch::current(&context.home).map_err(number)?;
        let begun = openfang_node::audit_epoch::is_begun(&context.home).map_err(number)?;
        Ok(Self {
            log_path: config.audit.log_path,
            dir: context.home.audit_dir(),
            key: keys.log.verifying_key(),
            origin: Origin::of(&keys.node_id(), epoch),
            begun,
        })
    }

    fn source(&self) -> Source<'_> {
        Source {
            log_path: &self.log_path,
            dir: &self.dir,
            key: &self.key,
            origin: &self.origin,
        }
    }

    /// Judges what the files alone cannot tell: an empty log that was begun has been removed.
    fn judge(&self, mut report: Report) -> Report {
        if report.verdict == Verdict::Empty && self.begun {
            report.verdict = Verdict::Tampered {
                first_bad_seq: None,
                kind: DamageKind::Missing,
            };
        }
        report
    }

    fn unreadable(&self, why: &dyn std::error::Error) -> Failure {
        let mut what = why.to_string();
        if let Some(source) = why.source() {
            what = format!("{what}: {source}");
        }
        Failure::new(Exit::Usage, what).mend(format!(
            "ls -l {} {}",
            self.log_path.display(),
            self.dir.display()
        ))
    }
}

fn verify_all(files: &Files, as_json: bool) -> Result<Exit, Failure> {
    let report = verify::verify_files(&files.log_path, &files.dir, &files.key, &files.origin)
        .map_err(|why| files.unreadable(&why))?;
    let report = files.judge(report);
    if as_json {
        render::json(&report_json(files, &report))?;
    } else {
        render::line(&report_text(files, &report))?;
    }
    Ok(exit_of(&report))
}

fn show_some(files: &Files, args: &Show, context: &Context) -> Result<Exit, Failure> {
    let agent = args.agent.as_deref().map(agent_key).transpose()?;
    let kinds = args.filter.as_deref().map(kinds_of).transpose()?;
    let filter = Filter {
        agent,
        kinds: kinds.unwrap_or_default(),
        since_unix_micros: None,
        limit: Some(usize::try_from(args.limit).unwrap_or(usize::MAX)),
    };
    let mut selection =
        read::select(files.source(), &filter).map_err(|why| files.unreadable(&why))?;
    selection.report = files.judge(selection.report);
    for line in &selection.lines {
        if args.json {
            render::line(&line.raw)?;
        } else {
            render::line(&render::cell(&shown(line)))?;
        }
    }
    warn_if_tampered(files, &selection.report);
    let exit = exit_of(&selection.report);
    match &filter.agent {
        Some(agent) if selection.lines.is_empty() && exit == Exit::Ok => {
            must_exist(files, agent, context)?;
        }
        Some(_) | None => {}
    }
    Ok(exit)
}

/// Nothing was shown: an agent that no entry is about and nobody has is a slip of the pen.
fn must_exist(files: &Files, agent: &AgentKey, context: &Context) -> Result<(), Failure> {
    let anything = Filter {
        agent: Some(agent.clone()),
        limit: Some(1),
        ..Filter::default()
    };
    let found = read::select(files.source(), &anything).map_err(|why| files.unreadable(&why))?;
    if !found.lines.is_empty() || lives(agent, context) {
        return Ok(());
    }
    let what = format!("no entry of this log is about {agent}, and no agent is called so");
    Err(Failure::new(Exit::NotFound, what).mend("openfang agent list, openfang audit show"))
}

fn lives(agent: &AgentKey, context: &Context) -> bool {
    let place = path::of_agent(path::AGENT, &agent.to_string());
    context
        .client()
        .and_then(|client| context.block_on(client.get::<serde_json::Value>(&place)))
        .is_ok()
}

fn export_all(files: &Files, format: Format) -> Result<Exit, Failure> {
    let format = match format {
        Format::Json => export::Format::Json,
        Format::Jsonl => export::Format::Jsonl,
    };
    let report = export::export(files.source(), format, &mut io::stdout().lock()).map_err(
        |why| match why {
            ExportError::Write(why) => why.into(),
            ExportError::Read(why) => files.unreadable(&why),
        },
    )?;
    let report = files.judge(report);
    warn_if_tampered(files, &report);
    Ok(exit_of(&report))
}

fn exit_of(report: &Report) -> Exit {
    match report.verdict {
        Verdict::Empty | Verdict::Intact { .. } => Exit::Ok,
        Verdict::Tampered { .. } => Exit::Failure,
    }
}

fn warn_if_tampered(files: &Files, report: &Report) {
    match report.verdict {
        Verdict::Empty | Verdict::Intact { .. } => {}
        Verdict::Tampered { .. } => render::message(&report_text(files, report)),
    }
}

fn report_text(files: &Files, report: &Report) -> String {
    let path = files.log_path.display();
    match &report.verdict {
        Verdict::Empty => format!("empty: {path} holds no entries, and none were ever signed"),
        Verdict::Intact {
            entries,
            root,
            unsigned,
            torn_bytes,
            ..
        } => {
            let mut text = format!("intact: {entries} entries in {path}, root {root}");
            if *unsigned > 0 {
                text.push_str(&format!(
                    "\n        {unsigned} of them are not under a signed head yet"
                ));
            }
            if *torn_bytes > 0 {
                text.push_str(&format!(
                    "\n        {torn_bytes} bytes of an unfinished line stand at the end"
                ));
            }
            text
        }
        Verdict::Tampered {
            first_bad_seq,
            kind,
        } => {
            let place =
                first_bad_seq.map_or_else(String::new, |seq| format!(", first bad entry {seq}"));
            format!(
                "TAMPERED: {kind}{place}, in {path}\n    mend: restore the file from a copy that verifies"
            )
        }
    }
}

fn report_json(files: &Files, report: &Report) -> serde_json::Value {
    let path = files.log_path.display().to_string();
    match &report.verdict {
        Verdict::Empty => json!({ "verdict": "empty", "path": path, "entries": 0 }),
        Verdict::Intact {
            entries,
            root,
            head,
            unsigned,
            torn_bytes,
        } => json!({
            "verdict": "intact",
            "path": path,
            "entries": entries,
            "root": root.to_string(),
            "checkpoint": head.as_ref().map(|head| head.note.as_str()),
            "unsigned": unsigned,
            "torn_bytes": torn_bytes,
        }),
        Verdict::Tampered {
            first_bad_seq,
            kind,
        } => json!({
            "verdict": "tampered",
            "path": path,
            "first_bad_seq": first_bad_seq,
            "what": kind.to_string(),
        }),
    }
}

fn shown(line: &Line) -> String {
    let mut text = format!("{:>8}  {}  {:<13}", line.seq.0, line.ts, line.ev);
    let agent = line.agent.map(|agent| agent.to_string());
    let fields = [
        ("agent", &agent),
        ("act", &line.act),
        ("target", &line.target),
        ("user", &line.user),
        ("cause", &line.cause),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            text.push_str(&format!(" {name}={value}"));
        }
    }
    if line.outcome != "ok" {
        text.push_str(&format!(" ({})", line.outcome));
    }
    text
}

fn agent_key(text: &str) -> Result<AgentKey, Failure> {
    text.parse()
        .map_err(|why| Failure::new(Exit::Usage, format!("{text:?} is no agent: {why}")))
}

fn kinds_of(text: &str) -> Result<Kinds, Failure> {
    text.parse().map_err(|why| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        Failure::new(Exit::Usage, format!("{text:?}: {why}"))
            .mend(format!("--filter with one of: {}", known.join(", ")))
    })
}
