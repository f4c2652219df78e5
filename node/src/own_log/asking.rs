//! What peers are asked about a log, and how their answers are read.

use std::time::Duration;

use openfang_audit::cosign::LogName;
use openfang_audit::inquiry::NOTES_MAX;
use openfang_audit::tile::split_entry;
use openfang_audit::{Checkpoint, Origin, SignedHead};
use openfang_id::{NodeId, VerifyingKey};
use openfang_mesh::{Answer, Liveness, Mesh, Question, Verb, View};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::witness::HEADS_OF_ASKER;

/// How long a peer may take to answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// What a node knows of a log.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// What it has cosigned as a witness. Nothing: it does not know.
    pub(super) cosigned: Vec<String>,
    /// What it has copied, or was to copy.
    pub(super) copied: Vec<String>,
}

/// Why a peer does not say how far its copy reaches.
#[derive(Clone, Copy)]
enum Silence {
    /// It does not answer, or not now.
    NoAnswer,
    /// It had more, and is mending it.
    Lost,
}

/// Asks a node what it has cosigned of the log of this one, and what it has copied. `None` when it does
/// not say.
pub(super) async fn ask(mesh: &Mesh, node: NodeId, origin: &Origin) -> Option<Notes> {
    let id = LogName::from(origin).id();
    let (heads, copy, accepted) = tokio::join!(
        get(mesh, node, HEADS_OF_ASKER.to_owned()),
        note_of_copy(mesh, node, origin),
        get(mesh, node, format!("mirror/{id}/accepted")),
    );
    let heads = heads?;
    let cosigned = match heads.status {
        // It does not know.
        404 => Vec::new(),
        200 => notes_of(&heads.body)?,
        _not_now => return None,
    };
    let mut copied = match copy {
        Ok(note) => Vec::from_iter(note),
        // What is left of it says nothing.
        Err(Silence::Lost) => Vec::new(),
        Err(Silence::NoAnswer) => return None,
    };
    let accepted = accepted.filter(|answer| answer.status == 200);
    copied.extend(accepted.and_then(|answer| String::from_utf8(answer.body).ok()));
    Some(Notes { cosigned, copied })
}

async fn get(mesh: &Mesh, node: NodeId, path: String) -> Option<Answer> {
    let question = Question {
        verb: Verb::Get,
        path,
        body: Vec::new(),
    };
    let answer = mesh.ask(node, question, Instant::now() + DEADLINE).await;
    answer.ok()
}

/// Reads the notes of an answer: a bundle of them.
pub(super) fn notes_of(body: &[u8]) -> Option<Vec<String>> {
    let mut notes = Vec::new();
    let mut rest = body;
    while !rest.is_empty() && notes.len() < NOTES_MAX {
        let (note, behind) = split_entry(rest)?;
        notes.push(String::from_utf8(note.to_vec()).ok()?);
        rest = behind;
    }
    Some(notes)
}

/// What peers have of a log.
#[derive(Default)]
pub(crate) struct Copies {
    /// The heads up to which their copies are complete.
    pub(crate) heads: Vec<(NodeId, Checkpoint)>,
    /// Those who did not say.
    pub(crate) silent: Vec<NodeId>,
}

/// Asks all nodes of the mesh how far their copies of a log reach.
pub(crate) async fn copies_of(
    mesh: &Mesh,
    view: &View,
    (origin, key): (&Origin, VerifyingKey),
) -> Copies {
    let mut asked = JoinSet::new();
    let mut copies = Copies::default();
    let others = view.nodes.iter().filter(|node| node.id != view.me);
    for node in others.filter(|node| node.liveness != Liveness::Left) {
        if node.liveness.is_reachable() {
            asked.spawn(head_of_copy(mesh.clone(), node.id, origin.clone(), key));
        } else {
            copies.silent.push(node.id);
        }
    }
    while let Some(told) = asked.join_next().await {
        match told {
            Ok((node, Ok(Some(head)))) => copies.heads.push((node, head)),
            Ok((_, Ok(None))) => {}
            Ok((node, Err(Silence::NoAnswer | Silence::Lost))) => copies.silent.push(node),
            Err(why) => tracing::error!(error = %why, "a question about copies failed"),
        }
    }
    copies.heads.sort_unstable_by_key(|(node, _)| *node);
    copies
}

/// Asks how far the copy of a peer reaches. Whatever is no head of the log is no copy of it.
async fn head_of_copy(
    mesh: Mesh,
    node: NodeId,
    origin: Origin,
    key: VerifyingKey,
) -> (NodeId, Result<Option<Checkpoint>, Silence>) {
    let note = note_of_copy(&mesh, node, &origin).await;
    let head = note.map(|note| {
        let opened = SignedHead::open(&note?, &origin, &key).ok()?;
        Some(opened.checkpoint)
    });
    (node, head)
}

/// Asks a peer for the head of its copy of a log; `None` when it has none.
async fn note_of_copy(
    mesh: &Mesh,
    node: NodeId,
    origin: &Origin,
) -> Result<Option<String>, Silence> {
    let id = LogName::from(origin).id();
    let answer = get(mesh, node, format!("mirror/{id}/checkpoint")).await;
    let answer = answer.ok_or(Silence::NoAnswer)?;
    match answer.status {
        200 => Ok(String::from_utf8(answer.body).ok()),
        404 => Ok(None),
        410 => Err(Silence::Lost),
        _not_now => Err(Silence::NoAnswer),
    }
}
