//! `openfang audit repair`: the log of a node that does not run, mended from copies that peers have.

use openfang_audit::verify::verify_files;
use openfang_node::config::process_environment;
use openfang_node::repair::{RepairError, Repaired, repair_log};
use openfang_node::telemetry;
use serde_json::json;

use super::{Files, verify};
use crate::args::Repair;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;
use crate::render::progress::Bar;

pub(super) fn run(args: &Repair, context: &Context) -> Result<Exit, Failure> {
    let prepared = openfang_node::prepare(&context.home, &process_environment)
        .map_err(|why| Failure::new(Exit::Failure, why.to_string()))?;
    telemetry::start(prepared.config().log_level, &process_environment)
        .map_err(|why| Failure::new(Exit::Config, why.to_string()))?;
    let mut bar = Bar::new("compare", "entries", args.json.json);
    let progress = move |now: openfang_audit::tile::Progress| bar.show(now.done, now.total);
    let repaired = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(repair_log(&prepared, args.from.as_deref(), progress))
        .map_err(|why| failure(&why))?;
    let files = Files::of(context)?;
    let source = files.source();
    let report = verify_files(source.log_path, source.dir, source.key, source.origin)
        .map_err(|why| files.unreadable(&why))?;
    let report = files.judge(report);
    if args.json.json {
        render::json(&object(&repaired))?;
    } else {
        render::line(&text(&repaired))?;
    }
    if repaired.put_aside.is_some() {
        return Ok(Exit::Ok);
    }
    verify::warn_if_tampered(&files, &report);
    Ok(verify::exit_of(&report))
}

fn failure(why: &RepairError) -> Failure {
    let exit = match why {
        RepairError::Unreachable { .. } => Exit::Unreachable,
        RepairError::NoCopy { .. } => Exit::NotFound,
        RepairError::Alone
        | RepairError::Mesh(_)
        | RepairError::Epoch(_)
        | RepairError::Lock(_)
        | RepairError::Io { .. }
        | RepairError::Copies(_)
        | RepairError::NotALine { .. }
        | RepairError::Cut => Exit::Failure,
    };
    Failure::new(exit, why.to_string())
}

fn text(repaired: &Repaired) -> String {
    let from = repaired.from.join(", ");
    let size = repaired.head.size;
    let mut text = format!("compared {size} entries with the copy of {from}");
    if let Some(folder) = &repaired.put_aside {
        text.push_str(&format!(
            "\ntoo much is damaged to be mended line by line: the log is put aside in {}\n    next: openfang start fetches all of it",
            folder.display()
        ));
        return text;
    }
    if repaired.patches.is_empty() {
        text.push_str("\nno entry under that head is damaged");
    }
    for patch in &repaired.patches {
        let last = patch.first_seq + patch.entries.saturating_sub(1);
        text.push_str(&format!(
            "\nreplaced entries {} to {last}: {} bytes were bad, and are kept in audit.d/evidence",
            patch.first_seq, patch.bad_bytes
        ));
    }
    if repaired.floor {
        text.push_str("\nmade the signing floor again");
    }
    text
}

fn object(repaired: &Repaired) -> serde_json::Value {
    let patches = repaired.patches.iter().map(|patch| {
        json!({
            "first_seq": patch.first_seq,
            "entries": patch.entries,
            "bad_bytes": patch.bad_bytes,
        })
    });
    json!({
        "from": repaired.from,
        "size": repaired.head.size,
        "root": repaired.head.root.to_string(),
        "replaced": patches.collect::<Vec<_>>(),
        "floor_made": repaired.floor,
        "put_aside": repaired.put_aside.as_ref().map(|path| path.display().to_string()),
    })
}
