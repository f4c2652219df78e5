//! `openfang audit verify`: whether the log is what was signed, whether others hold the same, and what
//! is known against it.
//!
//! Each of these is a state of its own, with its own words and exit code; the worst decides how the
//! command ends.

mod advice;
mod own;
mod peers;
mod proofs;
mod unsettled;
mod witnessed;

use openfang_audit::Checkpoint;
use openfang_audit::evidence::Listed;
use openfang_audit::survey::{Fit, survey};
use openfang_audit::verify::{DamageKind, Report, Verdict};
use openfang_node::clock::MachineClock;
use serde_json::{Value, json};

use super::evidence;
use super::files::Files;
use crate::args::Verify;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;
use crate::render::progress::Bar;

use advice::{Copy, Standing, contradiction, is_good_there, is_second_history};
pub(crate) use advice::{MEND_CONVICTED, MEND_SPENT};
use own::{Known, Own};
use peers::{Held, Peers};
pub(super) use proofs::{damaged, lost};
use proofs::{evidence_json, evidence_text};
use unsettled::{Elsewhere, Unsettled};
pub(crate) use witnessed::MEND_POISONED;
use witnessed::{Lack, Witnessed};

/// Everything that was found.
struct Findings {
    report: Report,
    witnessed: Witnessed,
    /// What the log contradicts that others hold.
    contradictions: Vec<String>,
    /// What others hold beyond what is signed here, while the log is in doubt.
    open: Vec<String>,
    /// Whether it has signed other entries than those, and not only more.
    two_histories: bool,
    /// What the node itself knows.
    own: Known,
    lacks: Vec<Lack>,
    evidence: Listed,
    /// What the log is judged by and cannot be read.
    unread: Vec<String>,
    /// With `--peers`: what they hold, or why they could not be asked.
    peers: Option<Result<Peers, Failure>>,
    /// Who holds a copy.
    copies: Vec<Copy>,
}

pub(super) fn run(files: &Files, args: &Verify, context: &Context) -> Result<Exit, Failure> {
    let mut unread = files.unread.clone();
    let evidence = evidence::known(files).unwrap_or_else(|why| {
        unread.push(said(&why));
        Listed::default()
    });
    unread.extend(damaged(files, &evidence));
    let found = match look(files, args, context, &mut unread) {
        Ok(found) => found,
        Err(why) => return unreadable(files, &why, (&evidence, &unread), args.json.json),
    };
    unread.extend(found.witnessed.unread());
    let found = Findings {
        evidence,
        unread,
        ..found
    };
    let exit = found.exit(files);
    if args.json.json {
        render::json(&found.as_json(files, exit))?;
    } else {
        render::line(&found.text(files))?;
    }
    Ok(exit)
}

/// Evidence against this log is worse than that it cannot be read.
fn unreadable(
    files: &Files,
    why: &Failure,
    (evidence, unread): (&Listed, &[String]),
    as_json: bool,
) -> Result<Exit, Failure> {
    let own = evidence
        .valid
        .iter()
        .any(|(_, found)| evidence::is_against(found, &files.origin));
    let exit = if own { Exit::EVIDENCE } else { why.exit() };
    if as_json {
        let mut shown = why.to_json();
        shown["verdict"] = "unreadable".into();
        shown["evidence"] = evidence_json(evidence);
        shown["incomplete"] = joined(unread).into();
        shown["exit"] = (exit as u8).into();
        render::json(&shown)?;
    }
    render::message(&why.to_string());
    for what in unread {
        render::message(&format!("INCOMPLETE: {what}"));
    }
    for line in evidence_text(files, evidence) {
        render::message(&line);
    }
    Ok(exit)
}

fn look(
    files: &Files,
    args: &Verify,
    context: &Context,
    unread: &mut Vec<String>,
) -> Result<Findings, Failure> {
    // What others hold is asked before the entries are read: they only become more.
    let peers = args.peers.then(|| peers::ask(files, context));
    let mut own = own::load(files, context, unread);
    let witnessed = Witnessed::load(files, own.complete);
    let held = held(files, &witnessed, peers.as_ref(), unread);
    let heads: Vec<Checkpoint> = held.iter().map(|one| one.head.clone()).collect();
    let mut bar = Bar::new("verifying", "entries", args.json.json);
    let surveyed = survey(files.source(), &heads, &mut |at| {
        bar.show(at.done, at.total);
    });
    bar.finish();
    let surveyed = surveyed.map_err(|why| files.unreadable(&why))?;
    unread.extend(lost(files, &surveyed.evidence));
    let report = files.judge(surveyed.report.clone());
    let at = Unsettled {
        is_unsettled: own.asking || own.own.is_unsettled(),
        runs: own.runs,
        signed: files.signed().ok().flatten().unwrap_or_default(),
    };
    let (open, settled) = at.split(&held, &surveyed);
    if !open.is_empty() && own.own == Own::Fine {
        own.own =
            Own::InDoubt("peers hold more than there is, and are being asked for it".to_owned());
    }
    let contradictions = if advice::is_unread(&surveyed.report) {
        Vec::new()
    } else {
        contradictions(&settled, &surveyed.report)
    };
    let fits = settled.iter().map(|(_, fit)| *fit);
    let differs = is_second_history(fits, &surveyed.report);
    let heard = own.own.heard().map(str::to_owned);
    let of_own = witnessed.head().and_then(|_| surveyed.compared.first());
    let now = own.runs.then(|| MachineClock.now_micros());
    let mut lacks = witnessed.lacks(&surveyed, of_own, now);
    lacks.extend(Lack::failing(own.failing.as_ref(), files));
    Ok(Findings {
        contradictions: contradictions.into_iter().chain(heard).collect(),
        open: open.iter().map(|(one, _)| at.text(one)).collect(),
        two_histories: differs || matches!(own.own, Own::Contradicted(_)),
        lacks,
        copies: copies(peers.as_ref()),
        report,
        witnessed,
        own,
        evidence: Listed::default(),
        unread: Vec::new(),
        peers,
    })
}

/// The heads of this log that others have cosigned or hold; first the one of the witnesses, where there is
/// one.
fn held(
    files: &Files,
    witnessed: &Witnessed,
    peers: Option<&Result<Peers, Failure>>,
    unread: &mut Vec<String>,
) -> Vec<Elsewhere> {
    let kept = |holder: &str, head: &Checkpoint| Elsewhere {
        holder: holder.to_owned(),
        head: head.clone(),
        is_kept: true,
    };
    let cosigned = witnessed.head();
    let cosigned = cosigned.map(|head| kept("the head that the witnesses have cosigned", head));
    let mut held: Vec<Elsewhere> = cosigned.into_iter().collect();
    let mirrored = files.mirrored().unwrap_or_else(|why| {
        unread.push(said(&why));
        Vec::new()
    });
    files.warn_of_mirrored();
    for head in mirrored {
        let is_new = held.iter().all(|known| known.head != head.checkpoint);
        if is_new {
            held.push(kept("a head that mirrors have cosigned", &head.checkpoint));
        }
    }
    if let Some(Ok(peers)) = peers {
        held.extend(peers.holdings.iter().filter_map(|one| match &one.held {
            Held::Head(head) => Some(Elsewhere {
                holder: format!("what {} holds as a {}", one.node, one.role),
                head: head.clone(),
                is_kept: false,
            }),
            Held::Foreign(_) => None,
        }));
    }
    held
}

/// What speaks against the log. Who has the good entries in the place of bad ones is told in one sentence.
fn contradictions(held: &[(&Elsewhere, Fit)], report: &Report) -> Vec<String> {
    let (good_there, others): (Vec<_>, Vec<_>) = held
        .iter()
        .partition(|(one, fit)| is_good_there(&one.head, *fit, report));
    let others = others
        .into_iter()
        .filter_map(|(one, fit)| contradiction(&one.holder, &one.head, fit, report));
    let names: Vec<String> = good_there
        .iter()
        .map(|(one, _)| format!("{} ({} entries)", one.holder, one.head.size))
        .collect();
    let good_there = (!names.is_empty()).then(|| {
        format!(
            "others know what the bad entries were: {}",
            names.join(", ")
        )
    });
    good_there.into_iter().chain(others).collect()
}

/// Who could give entries back.
fn copies(peers: Option<&Result<Peers, Failure>>) -> Vec<Copy> {
    let Some(Ok(peers)) = peers else {
        return Vec::new();
    };
    let mirrors = peers.holdings.iter().filter(|one| one.role == "mirror");
    mirrors
        .filter_map(|one| match &one.held {
            Held::Head(head) => Some(Copy {
                name: one.name.clone(),
                size: head.size,
            }),
            Held::Foreign(_) => None,
        })
        .collect()
}

/// A failure as a part of a longer text.
fn said(why: &Failure) -> String {
    let text = why.to_string();
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

fn joined(texts: &[String]) -> Option<String> {
    (!texts.is_empty()).then(|| texts.join("\n"))
}

impl Findings {
    fn is_tampered(&self) -> bool {
        exit_of(&self.report) != Exit::Ok || !self.contradictions.is_empty()
    }

    /// What could not be found out, and why.
    fn incomplete(&self, files: &Files) -> Vec<String> {
        let asked = match &self.peers {
            Some(Err(why)) => Some(format!("the peers were not asked: {}", said(why))),
            Some(Ok(peers)) if peers.known > 0 && peers.answered == 0 => Some(format!(
                "none of {} peers has answered: nothing was compared",
                peers.known
            )),
            Some(Ok(_)) | None => None,
        };
        let unread = self.unread.iter().cloned();
        unread.chain(asked).chain(self.lacks_floor(files)).collect()
    }

    /// Says that it is not known whether the entries are all that were signed, where nothing worse is.
    fn lacks_floor(&self, files: &Files) -> Option<String> {
        let is_good = !self.is_tampered() && self.own.own.doubt().is_none();
        let lacks = advice::missing_floor(files, &self.report);
        lacks.filter(|_| is_good)
    }

    /// Whether evidence against this very node is known.
    fn convicts_own(&self, files: &Files) -> bool {
        let against_own = |(_, found): &(String, openfang_audit::evidence::Evidence)| {
            evidence::is_against(found, &files.origin)
        };
        self.evidence.valid.iter().any(against_own)
    }

    /// The worst of what holds: evidence against this log, tampering, what could not be found out,
    /// evidence against others, what the log lacks.
    fn exit(&self, files: &Files) -> Exit {
        if self.convicts_own(files) {
            Exit::EVIDENCE
        } else if self.is_tampered() {
            Exit::Failure
        } else if !self.incomplete(files).is_empty() || self.own.own.doubt().is_some() {
            Exit::Usage
        } else if !self.evidence.valid.is_empty() {
            Exit::EVIDENCE
        } else if !self.lacks.is_empty() {
            Exit::STALE
        } else {
            Exit::Ok
        }
    }

    fn text(&self, files: &Files) -> String {
        let mut lines = vec![report_text(files, &self.report)];
        let rolled_back = exit_of(&self.report) == Exit::Ok && !self.contradictions.is_empty();
        if rolled_back {
            let path = files.log_path.display();
            lines = vec![format!(
                "TAMPERED: the files of {path} agree with each other, and not with what others hold"
            )];
        }
        lines.extend(self.contradictions.iter().cloned());
        if self.is_tampered() {
            let standing = Standing {
                copies: &self.copies,
                two_histories: self.two_histories,
                convicted: self.convicts_own(files),
                own: &self.own,
            };
            lines.push(advice::of_damage(files, &self.report, standing));
        } else {
            if let Some(why) = self.own.own.doubt() {
                lines = vec![advice::doubt_text(files, &self.report, why, self.own.runs)];
            }
            lines.extend(self.open.iter().cloned());
            lines.push(self.witnessed.text());
            lines.extend(files.missing_reserve());
            lines.extend(self.lacks.iter().map(|lack| lack.text.clone()));
        }
        lines.extend(self.peers_text(files));
        lines.extend(evidence_text(files, &self.evidence));
        // What helps a log with two histories is said above.
        if self.convicts_own(files) && !self.two_histories {
            lines.push(format!("    mend: {MEND_CONVICTED}"));
        }
        lines.join("\n")
    }

    fn peers_text(&self, files: &Files) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for why in self.incomplete(files) {
            lines.push(format!("INCOMPLETE: {why}"));
        }
        let Some(Ok(peers)) = &self.peers else {
            return lines;
        };
        if peers.known == 0 {
            lines.push("peers: none".to_owned());
        }
        for silent in &peers.silent {
            lines.push(format!("no answer from {silent}"));
        }
        for one in &peers.holdings {
            lines.push(match &one.held {
                Held::Head(head) => format!("{} {}: {} entries", one.role, one.node, head.size),
                Held::Foreign(why) => format!(
                    "{} {}: what it shows is no head of this log: {why}",
                    one.role, one.node
                ),
            });
        }
        lines
    }

    fn as_json(&self, files: &Files, exit: Exit) -> Value {
        let mut shown = report_json(files, &self.report);
        if !self.contradictions.is_empty() {
            shown["verdict"] = "tampered".into();
        } else if let (Some(why), false) = (self.own.own.doubt(), self.is_tampered()) {
            shown["verdict"] = "in_doubt".into();
            shown["doubt"] = why.into();
        }
        shown["standing"] = self.own.own.word().into();
        shown["floor"] = files.floor_word().into();
        let lacks = self
            .lacks
            .iter()
            .map(|lack| json!({ "state": lack.word, "text": lack.text }));
        shown["contradictions"] = self.contradictions.clone().into();
        shown["witnessed"] = self.witnessed.as_json();
        shown["lacks"] = lacks.collect();
        shown["evidence"] = evidence_json(&self.evidence);
        shown["incomplete"] = joined(&self.incomplete(files)).into();
        if let Some(Ok(peers)) = &self.peers {
            shown["peers"] = peers.as_json();
        }
        shown["exit"] = (exit as u8).into();
        shown
    }
}

pub(super) fn exit_of(report: &Report) -> Exit {
    match report.verdict {
        Verdict::Empty | Verdict::Intact { .. } => Exit::Ok,
        Verdict::Tampered { .. } => Exit::Failure,
    }
}

pub(super) fn warn_if_tampered(files: &Files, report: &Report) {
    match report.verdict {
        Verdict::Empty | Verdict::Intact { .. } => {}
        Verdict::Tampered { .. } => render::message(&format!(
            "{}\n    mend: openfang audit verify says more, and whether openfang audit repair can mend it",
            report_text(files, report)
        )),
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
            let path = first_bad_seq.map_or(path.to_string(), |seq| files.lines_of(seq));
            let what = advice::what(files, *kind);
            let mut text = format!("TAMPERED: {what}{place}, in {path}");
            if *kind == DamageKind::Head {
                text = format!("{text}\n{}", advice::heads_text(files));
            }
            text
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
            "what": advice::what(files, *kind),
        }),
    }
}
