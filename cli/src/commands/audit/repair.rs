//! `openfang audit repair`: the log of a node that does not run, mended from copies that peers have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openfang_audit::repair::NoPart;
use openfang_audit::verify::{DamageKind, Report, Verdict, verify_files};
use openfang_node::config::{LogLevel, process_environment};
use openfang_node::repair::{
    Accepted, Cut, LINKS, RepairError, Repaired, Replaced, Wanted, repair_log,
};
use openfang_node::telemetry;
use serde_json::json;

use super::{Files, verify};
use crate::args::Repair;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;
use crate::render::progress::Bar;

/// Work that is over sooner says nothing.
const QUIET_FOR: Duration = Duration::from_secs(1);

pub(super) fn run(args: &Repair, context: &Context) -> Result<Exit, Failure> {
    let prepared = openfang_node::prepare(&context.home, &process_environment)
        .map_err(|why| Failure::new(Exit::Failure, why.to_string()))?;
    // What it did is its answer. OPENFANG_LOG shows how.
    telemetry::start_of_command(LogLevel::Error, &process_environment, args.json.json)
        .map_err(|why| Failure::new(Exit::Config, why.to_string()))?;
    let mut bar = Bar::new("compare", "entries", args.json.json);
    let compares = Arc::new(AtomicBool::new(false));
    let begun = Arc::clone(&compares);
    let progress = move |now: openfang_audit::tile::Progress| {
        begun.store(true, Ordering::Relaxed);
        bar.show(now.done, now.total);
    };
    let wanted = Wanted {
        from: args.from.as_deref(),
        accept: args.accept,
    };
    let repaired = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let mut work = std::pin::pin!(repair_log(&prepared, wanted, progress));
            if let Ok(done) = tokio::time::timeout(QUIET_FOR, &mut work).await {
                return done;
            }
            if !compares.load(Ordering::Relaxed) {
                say_waiting(args.json.json);
            }
            work.await
        })
        .map_err(|why| failure(&why))?;
    let files = Files::of(context)?;
    let source = files.source();
    let report = verify_files(source.log_path, source.dir, source.key, source.origin)
        .map_err(|why| files.unreadable(&why))?;
    let report = files.judge(report);
    let exit = match repaired.put_aside {
        Some(_) => Exit::Ok,
        None => verify::exit_of(&report),
    };
    if args.json.json {
        render::json(&object(&repaired, exit))?;
    } else {
        render::line(&text(&repaired, &report))?;
    }
    match too_short(&repaired, &report) {
        _ if repaired.put_aside.is_some() => {}
        Some(why) => render::message(&why),
        None => verify::warn_if_tampered(&files, &report),
    }
    Ok(exit)
}

/// Nobody may be there for a while.
fn say_waiting(as_json: bool) {
    let most = LINKS.as_secs();
    render::message(&if as_json {
        json!({ "progress": { "what": "look for copies", "unit": "s", "done": QUIET_FOR.as_secs(), "total": most, "elapsed_ms": 1_000 * QUIET_FOR.as_secs() } }).to_string()
    } else {
        format!("looking for nodes that have a copy, for {most} s at most")
    });
}

fn failure(why: &RepairError) -> Failure {
    let exit = match why {
        RepairError::Unreachable { .. } => Exit::Unreachable,
        RepairError::NoCopy { .. } | RepairError::Unknown { .. } => Exit::NotFound,
        RepairError::NotAlone => Exit::Usage,
        RepairError::Alone { .. }
        | RepairError::NotNeeded { .. }
        | RepairError::TwoHistories { .. }
        | RepairError::Mesh(_)
        | RepairError::Epoch { .. }
        | RepairError::Lock { .. }
        | RepairError::Io { .. }
        | RepairError::Copies(_)
        | RepairError::NotALine { .. }
        | RepairError::Cut => Exit::Failure,
    };
    Failure::new(exit, render::printable(&why.to_string()))
}

fn text(repaired: &Repaired, report: &Report) -> String {
    let mut lines: Vec<String> = Vec::new();
    if let Some(head) = &repaired.head {
        let from = render::cell(&repaired.from.join(", "));
        lines.push(format!(
            "compared {} entries with the copy of {from}",
            head.size
        ));
    }
    if let Some(folder) = &repaired.put_aside {
        lines.push(format!(
            "too much is damaged to be mended line by line: the log is put aside in {}\n    next: openfang start fetches all of it",
            folder.display()
        ));
        return lines.join("\n");
    }
    lines.extend(repaired.patches.iter().map(replaced_text));
    lines.extend(repaired.cut.as_ref().map(cut_text));
    lines.extend(repaired.accepted.map(accepted_text));
    if repaired.floor {
        lines.push("made the signing floor again".to_owned());
    }
    if repaired.published {
        lines.push(
            "made the published head again, from the signing floor; the damaged one is kept in audit.d/checkpoint.damaged".to_owned(),
        );
    }
    let nothing = repaired.patches.is_empty()
        && !repaired.published
        && repaired.cut.is_none()
        && repaired.accepted.is_none()
        && !repaired.floor;
    if nothing && verify::exit_of(report) == Exit::Ok {
        lines.push("nothing is damaged: nothing was changed".to_owned());
    } else if nothing && is_gone(report) {
        lines.push("the log is gone, so that there is nothing to repair: nothing was changed\n    next: openfang start begins a new one, in the next epoch; or put it back from a backup first".to_owned());
    } else if nothing {
        let of = repaired
            .head
            .as_ref()
            .map_or_else(String::new, |head| format!(" {}", head.size));
        lines.push(format!(
            "none of these{of} entries is damaged: nothing was changed"
        ));
    }
    lines.join("\n")
}

/// Says that the copies that were found end before the damage, and who may have a longer one: to do it again
/// with the same ones helps nothing.
fn too_short(repaired: &Repaired, report: &Report) -> Option<String> {
    let Verdict::Tampered {
        first_bad_seq: Some(first_bad),
        kind,
    } = report.verdict
    else {
        return None;
    };
    let size = repaired.head.as_ref()?.size;
    if first_bad < size {
        return None;
    }
    let silent = render::cell(&repaired.silent.join(", "));
    let mend = if silent.is_empty() {
        "every other node has answered, and none has more: put the files back from a backup that verifies; or move audit.jsonl and audit.d away, then openfang start, which fetches what the copies have and begins a new log".to_owned()
    } else {
        format!(
            "start the nodes that were not heard of, one of which may have more: {silent}; then openfang audit repair again"
        )
    };
    Some(format!(
        "TAMPERED: {kind}, first bad entry {first_bad}: the copies that can be reached have no more than {size} entries, and cannot mend it\n    mend: {mend}"
    ))
}

fn is_gone(report: &Report) -> bool {
    match report.verdict {
        Verdict::Tampered {
            first_bad_seq,
            kind,
        } => first_bad_seq.is_none() && kind == DamageKind::Missing,
        Verdict::Empty | Verdict::Intact { .. } => false,
    }
}

fn replaced_text(replaced: &Replaced) -> String {
    let Replaced {
        first_seq,
        end_seq,
        entries,
        bad_bytes,
        kept_bytes,
        fetched_seq,
        fetched,
    } = *replaced;
    let last = end_seq.saturating_sub(1);
    let bytes = bytes_text(bad_bytes);
    let what = match (entries, kept_bytes) {
        (0, _) => format!("something was put in before entry {first_seq}: {bytes} taken out"),
        (1, 0) => format!("entry {first_seq} was missing: put back"),
        (_, 0) => format!("entries {first_seq} to {last} were missing: put back"),
        (1, _) => format!("entry {first_seq} differed, in {bytes}: replaced"),
        (_, _) => format!(
            "{entries} of the entries {first_seq} to {last} differed or were missing, in {bytes}: replaced"
        ),
    };
    let kept = match kept_bytes {
        0 => String::new(),
        1 => "\n    the byte that stood there is kept in audit.d/evidence".to_owned(),
        kept => format!("\n    the {kept} bytes that stood there are kept in audit.d/evidence"),
    };
    let behind = fetched_seq + fetched.saturating_sub(1);
    format!(
        "{what}\n    fetched for it: the entries {fetched_seq} to {behind}, as they come in bundles{kept}"
    )
}

fn bytes_text(count: u64) -> String {
    match count {
        1 => "1 byte".to_owned(),
        more => format!("{more} bytes"),
    }
}

fn cut_text(cut: &Cut) -> String {
    let why = match cut.why {
        NoPart::AfterTheEnd => {
            "they were written after the log was closed, and no head of it covers them"
        }
        NoPart::Damaged => "no head covers them, and the first line of them is no good entry",
    };
    let before = match cut.seq.checked_sub(1) {
        Some(last) => format!("behind entry {last}"),
        None => "from the begin of the log".to_owned(),
    };
    format!(
        "cut off {} {before}: {why}\n    kept in {}",
        bytes_text(cut.bytes),
        cut.kept.display()
    )
}

fn accepted_text(accepted: Accepted) -> String {
    match accepted {
        Accepted::Published { size } => format!(
            "the log goes on from its published head of {size} entries, which is its signing floor now. Entries that were signed later and shown to somebody contradict what is signed from now on"
        ),
        Accepted::Unsigned { entries } => format!(
            "the {entries} entries are taken as they stand: no signed head says what they were. The next start signs them. Heads that were signed before and shown to somebody may contradict that"
        ),
    }
}

fn object(repaired: &Repaired, exit: Exit) -> serde_json::Value {
    let patches = repaired.patches.iter().map(|patch| {
        json!({
            "first_seq": patch.first_seq,
            "end_seq": patch.end_seq,
            "entries": patch.entries,
            "bad_bytes": patch.bad_bytes,
            "kept_bytes": patch.kept_bytes,
            "fetched_seq": patch.fetched_seq,
            "fetched": patch.fetched,
        })
    });
    let head = repaired.head.as_ref();
    let cut = repaired.cut.as_ref().map(|cut| {
        json!({
            "seq": cut.seq,
            "bytes": cut.bytes,
            "kept": cut.kept.display().to_string(),
        })
    });
    let accepted = repaired.accepted.map(|accepted| match accepted {
        Accepted::Published { size } => json!({ "published": size }),
        Accepted::Unsigned { entries } => json!({ "unsigned": entries }),
    });
    json!({
        "from": repaired.from,
        "silent": repaired.silent,
        "size": head.map(|head| head.size),
        "root": head.map(|head| head.root.to_string()),
        "replaced": patches.collect::<Vec<_>>(),
        "cut": cut,
        "accepted": accepted,
        "floor_made": repaired.floor,
        "published_made": repaired.published,
        "put_aside": repaired.put_aside.as_ref().map(|path| path.display().to_string()),
        "exit": exit as u8,
    })
}
