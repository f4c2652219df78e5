//! An upload on its way into a copy.

use std::io;

use openfang_audit::cosign::CosignerKey;
use openfang_audit::mirror::{
    BeginError, Committed, FsMirrorStore, MIRROR_INFO_TYPE, Mirror, MirrorInfo, MirrorReadError,
    Piece, StageError, UploadDecoder, UploadHeader, WireError,
};
use openfang_audit::note::{Note, Signature};
use openfang_mesh::Answer;

use super::answering::{TEXT, refuse, text};

const NO_ROOM: u16 = 507;
const UNAVAILABLE: u16 = 503;

/// What an upload has come to.
pub(super) struct Received {
    pub(super) answer: Answer,
    /// The copy must be opened again before it is used.
    pub(super) open_again: bool,
}

/// The packages of a request, behind its header.
pub(super) struct Packages<'a> {
    decoder: UploadDecoder,
    rest: &'a [u8],
}

/// Why the rest of a request was not taken.
enum Refused {
    Wire(WireError),
    Stage(StageError),
}

/// Reads what an upload begins with.
pub(super) fn header(body: &[u8]) -> Result<(UploadHeader, Packages<'_>), WireError> {
    let mut decoder = UploadDecoder::default();
    let mut rest = body;
    match decoder.feed(&mut rest)? {
        Some(Piece::Header(header)) => Ok((header, Packages { decoder, rest })),
        // A header comes first or not at all.
        Some(Piece::Package(_)) | None => Err(WireError::Range),
    }
}

/// Takes an upload into a copy. What was checked and written before something was refused is kept.
pub(super) fn receive(
    mirror: &mut Mirror<FsMirrorStore>,
    header: &UploadHeader,
    mut packages: Packages<'_>,
    key: &CosignerKey,
) -> Received {
    let upload = match mirror.begin(header) {
        Ok(upload) => upload,
        Err(BeginError::Conflict(at)) => return info(409, &at).into(),
        Err(why @ BeginError::OtherOrigin) => return refuse(404, &why.to_string()).into(),
        Err(why @ BeginError::NothingPending) => return refuse(422, &why.to_string()).into(),
    };
    let mut refused = None;
    loop {
        match packages.next() {
            Ok(None) => break,
            Ok(Some(package)) => {
                if let Err(why) = mirror.stage(&upload, &package) {
                    refused = Some(Refused::Stage(why));
                    break;
                }
            }
            Err(why) => {
                refused = Some(Refused::Wire(why));
                break;
            }
        }
    }
    let committed = match mirror.commit(&upload) {
        Ok(committed) => committed,
        Err(why) => {
            tracing::error!(log.origin = mirror.origin(), error = %why, "an upload to the copy of a log is lost");
            return Received {
                answer: Answer::status(UNAVAILABLE),
                open_again: true,
            };
        }
    };
    match (refused, committed) {
        (Some(why), _) => why.into_received(mirror),
        (None, Committed::Complete(head)) => cosigned(&head.note, key).into(),
        (None, Committed::Partial(at)) => info(202, &at).into(),
        (None, Committed::Overtaken(at)) => info(409, &at).into(),
    }
}

impl Packages<'_> {
    fn next(&mut self) -> Result<Option<openfang_audit::mirror::Package>, WireError> {
        match self.decoder.feed(&mut self.rest)? {
            Some(Piece::Package(package)) => Ok(Some(package)),
            Some(Piece::Header(_)) | None => Ok(None),
        }
    }
}

impl Refused {
    fn into_received(self, mirror: &Mirror<FsMirrorStore>) -> Received {
        let why = match self {
            Self::Wire(why) => return refuse(400, &why.to_string()).into(),
            Self::Stage(why) => why,
        };
        let said = why.to_string();
        let full = |why: &io::Error| {
            matches!(
                why.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        };
        match why {
            StageError::Range | StageError::Proof(_) => {
                tracing::warn!(log.origin = mirror.origin(), error = %said, "entries are not part of the log they were uploaded to");
                refuse(422, &said).into()
            }
            StageError::Gap | StageError::TooFar => info(409, &mirror.info()).into(),
            StageError::Quota { .. } => {
                tracing::warn!(log.origin = mirror.origin(), error = %said, "the copy of a log is full; audit.mirror_quota_mb bounds it");
                refuse(NO_ROOM, &said).into()
            }
            StageError::Store(MirrorReadError::Io(why)) if full(&why) => {
                tracing::error!(log.origin = mirror.origin(), error = %why, "no room for the copy of a log");
                refuse(NO_ROOM, "the disk of this mirror is full").into()
            }
            StageError::Store(why) => {
                tracing::error!(log.origin = mirror.origin(), error = %why, "the copy of a log cannot be written");
                Received {
                    answer: Answer::status(UNAVAILABLE),
                    open_again: true,
                }
            }
            StageError::Failed => Received {
                answer: Answer::status(UNAVAILABLE),
                open_again: true,
            },
        }
    }
}

impl From<Answer> for Received {
    fn from(answer: Answer) -> Self {
        Self {
            answer,
            open_again: false,
        }
    }
}

/// Gives out the cosignature of a complete head. A head that a retired key has cosigned has none: its
/// log must hand it in again.
fn cosigned(note: &str, key: &CosignerKey) -> Answer {
    let note: Option<Note> = note.parse().ok();
    let own = |line: &&Signature| line.name == key.name() && line.key_id == key.key_id();
    match note.and_then(|note| note.with_only(own)) {
        Some(note) => {
            let lines = note.signatures().iter();
            let body: String = lines.map(|line| format!("{line}\n")).collect();
            text(200, TEXT, body.into_bytes())
        }
        None => refuse(
            422,
            "this head was accepted with an earlier key: hand it in again",
        ),
    }
}

fn info(status: u16, at: &MirrorInfo) -> Answer {
    text(status, MIRROR_INFO_TYPE, at.to_string().into_bytes())
}
