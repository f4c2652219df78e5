//! What others hold of this node's audit log, and what this node holds against others.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::extract::State;
use futures::{StreamExt as _, stream};
use openfang_audit::cosign::{LogName, TreeHead};
use openfang_audit::evidence::{Accused, Evidence, is_file_name};
use openfang_audit::note::Note;
use openfang_audit::survey::survey;
use openfang_audit::verify::{Source, VerifyError};
use openfang_audit::{HEAD_BYTES_MAX, Log, Origin};
use openfang_id::NodeId;
use openfang_mesh::{Mesh, Question, Verb};
use openfang_schema::{
    AuditEvidence, AuditPeer, AuditPeers, EvidenceFile, EvidenceHead, HeldHead, MissingEvidence,
};
use tokio::time::Instant;

use super::audit::{blocking, log};
use super::{Answer, AppState, ok};
use crate::error::ApiError;
use crate::state::LogFiles;

/// How long all of them together may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many peers are asked at once.
const AT_ONCE: usize = 16;
/// The most peers that are asked: a log has four witnesses and three mirrors, and had others before.
const PEERS_MAX: usize = 256;
/// The most files of evidence of one answer, each of at most 4 KiB.
const FILES_MAX: usize = 256;

/// `GET /api/audit/peers`: asks every peer that witnesses or mirrors logs.
pub(crate) async fn peers(State(app): AppState) -> Answer {
    let log = log(&app.state)?;
    let (origin, mesh) = (log.origin().clone(), app.state.mesh.clone());
    let asked = candidates(&mesh);
    let size = log.size();
    let deadline = Instant::now() + DEADLINE;
    let peers = stream::iter(asked)
        .map(|(node, name)| ask((mesh.clone(), deadline), (node, name), &origin, size))
        .buffered(AT_ONCE)
        .collect()
        .await;
    ok(&AuditPeers {
        origin: origin.to_string(),
        size: log.size(),
        peers,
    })
}

fn candidates(mesh: &Mesh) -> Vec<(NodeId, String)> {
    let view = mesh.view();
    let others = view.nodes.iter().filter(|node| node.id != view.me);
    let cosigning = others.filter(|node| {
        let cosigners = &node.record.record().cosigners;
        cosigners.witness.is_some() || cosigners.mirror.is_some()
    });
    cosigning
        .map(|node| (node.id, node.record.record().name.to_string()))
        .take(PEERS_MAX)
        .collect()
}

async fn ask(
    (mesh, deadline): (Mesh, Instant),
    (node, name): (NodeId, String),
    origin: &Origin,
    size: u64,
) -> AuditPeer {
    let id = LogName::from(origin).id();
    let of = |role: &str| Question {
        verb: Verb::Get,
        path: format!("{role}/{id}/checkpoint"),
        body: Vec::new(),
    };
    let (witness, mirror) = futures::join!(
        mesh.ask(node, of("witness"), deadline),
        mesh.ask(node, of("mirror"), deadline)
    );
    let held = |answer: &openfang_mesh::Answer| held(answer, origin, size);
    AuditPeer {
        node_id: node.to_string(),
        node_name: name,
        answered: witness.is_ok() || mirror.is_ok(),
        witness: witness.as_ref().ok().and_then(held),
        mirror: mirror.as_ref().ok().and_then(held),
    }
}

/// Reads what a peer has answered; `None` when it is no head of the log.
fn held(answer: &openfang_mesh::Answer, origin: &Origin, size: u64) -> Option<HeldHead> {
    if answer.status != 200 || answer.body.len() > HEAD_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(&answer.body).ok()?;
    let note: Note = text.parse().ok()?;
    let head: TreeHead = note.text().parse().ok()?;
    (head.origin.as_str() == origin.as_str()).then(|| HeldHead {
        size: head.size,
        ahead: head.size > size,
        checkpoint: text.to_owned(),
    })
}

/// `GET /api/audit/evidence`
pub(crate) async fn evidence(State(app): AppState) -> Answer {
    let folder = app.state.evidence.clone();
    let reading = app.state.evidence.clone();
    let read = blocking(move || list(&reading)).await?;
    let mut read = read.map_err(|error| ApiError::internal("Reading the evidence", &error))?;
    if let Some(log) = app.state.audit.clone() {
        let log_files = app.state.log_files.clone();
        let turn = app.verifying.lock().await;
        let missing = blocking(move || missing(&log, &log_files, &folder)).await?;
        drop(turn);
        let why = |error| ApiError::internal("Reading the audit log", &error);
        read.missing = missing.map_err(why)?;
    }
    ok(&read)
}

/// Reads the whole log for the evidence that it tells of, and returns what of it is not there.
fn missing(
    log: &Log,
    files: &LogFiles,
    folder: &Path,
) -> Result<Vec<MissingEvidence>, VerifyError> {
    let source = Source {
        log_path: &files.log_path,
        dir: &files.dir,
        key: &files.key,
        origin: log.origin(),
    };
    let told = survey(source, &[], &mut |_at| {})?.evidence;
    let gone = told
        .into_iter()
        .filter(|told| !folder.join(&told.file).exists());
    let missing = gone.map(|told| MissingEvidence {
        file: told.file,
        about: told.about,
    });
    Ok(missing.collect())
}

/// Reads the files and checks each: what is shown here holds.
fn list(folder: &Path) -> io::Result<AuditEvidence> {
    let listed = openfang_audit::evidence::list(folder, FILES_MAX)?;
    for (file, why) in &listed.worthless {
        tracing::warn!(folder = %folder.display(), file, error = %why, "a file beside the evidence proves nothing");
    }
    let named = listed.worthless.iter().map(|(file, _why)| file.clone());
    let damaged = named.filter(|file| is_file_name(file)).collect();
    let valid = listed.valid.into_iter();
    Ok(AuditEvidence {
        damaged,
        missing: Vec::new(),
        evidence: valid.map(|(name, found)| shown(name, &found)).collect(),
        worthless: listed.worthless.len(),
        left_out: listed.left_out,
    })
}

fn shown(file: String, found: &Evidence) -> EvidenceFile {
    let heads = found.heads().map(|head| EvidenceHead {
        size: head.size,
        root: head.root.to_string(),
    });
    EvidenceFile {
        file,
        kind: found.kind().to_string(),
        accused: match found.accused() {
            Accused::Log(key) => key.to_string(),
            Accused::Cosigner(key) => key.to_string(),
        },
        origin: found.origin().to_string(),
        heads: heads.to_vec(),
        content: String::from_utf8_lossy(&found.to_bytes()).into_owned(),
    }
}
