//! Evidence as JSON.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::{
    Accused, Coordinate, EVIDENCE_BYTES_MAX, Evidence, EvidenceError, EvidenceKind, ForkProof,
    Path, Statement,
};
use crate::Hash;
use crate::base64::decode_hash;
use crate::note::Note;
use crate::proof::PROOF_HASHES_MAX;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "type")]
    kind: Kind,
    origin: String,
    vkey: String,
    a: String,
    b: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    proofs: Option<Proofs>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Equivocation,
    Fork,
    Cosigner,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proofs {
    level: u32,
    index: u64,
    a: WirePath,
    b: WirePath,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePath {
    node: String,
    path: Vec<String>,
}

impl Evidence {
    /// Reads the form of evidence. What it proves is told by [`Evidence::verify`] only.
    ///
    /// # Errors
    /// When it is longer than allowed, or not in the one form that evidence has.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > EVIDENCE_BYTES_MAX {
            return Err(EvidenceError::TooLong);
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|_shape| EvidenceError::Form)?;
        let accused = match wire.kind {
            Kind::Equivocation | Kind::Fork => wire.vkey.parse().map(Accused::Log),
            Kind::Cosigner => wire.vkey.parse().map(Accused::Cosigner),
        }
        .map_err(EvidenceError::Key)?;
        let fork = match (wire.kind, wire.proofs) {
            (Kind::Fork, Some(proofs)) => {
                let fork = ForkProof::read(&proofs).ok_or(EvidenceError::Form)?;
                Some(Box::new(fork))
            }
            (Kind::Equivocation | Kind::Cosigner, None) => None,
            (Kind::Fork, None) | (Kind::Equivocation | Kind::Cosigner, Some(_)) => {
                return Err(EvidenceError::Form);
            }
        };
        let read = Self {
            accused,
            a: Statement::read(&wire.a)?,
            b: Statement::read(&wire.b)?,
            fork,
        };
        // Spaces, the order of fields, escapes: there is one way to write it.
        if read.to_bytes() == bytes {
            Ok(read)
        } else {
            Err(EvidenceError::Form)
        }
    }

    /// Writes it in its one form, without a line feed.
    ///
    /// # Panics
    /// Never: texts and numbers can be written as JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = Wire {
            kind: match self.kind() {
                EvidenceKind::Equivocation => Kind::Equivocation,
                EvidenceKind::Fork => Kind::Fork,
                EvidenceKind::Cosigner => Kind::Cosigner,
            },
            origin: self.origin().to_string(),
            vkey: match &self.accused {
                Accused::Log(key) => key.to_string(),
                Accused::Cosigner(key) => key.to_string(),
            },
            a: self.a.note.to_string(),
            b: self.b.note.to_string(),
            proofs: self.fork.as_deref().map(ForkProof::write),
        };
        serde_json::to_vec(&wire).expect("texts and numbers can be written as JSON")
    }
}

impl Statement {
    fn read(note: &str) -> Result<Self, EvidenceError> {
        let note: Note = note.parse().map_err(EvidenceError::Note)?;
        let head = note.text().parse().map_err(EvidenceError::Head)?;
        Ok(Self { note, head })
    }
}

impl ForkProof {
    fn read(proofs: &Proofs) -> Option<Self> {
        let read = |side: &WirePath| {
            if side.path.len() > PROOF_HASHES_MAX {
                return None;
            }
            Some(Path {
                node: decode_hash(&side.node)?,
                path: side
                    .path
                    .iter()
                    .map(|hash| decode_hash(hash))
                    .collect::<Option<_>>()?,
            })
        };
        Some(Self {
            at: Coordinate {
                level: proofs.level,
                index: proofs.index,
            },
            a: read(&proofs.a)?,
            b: read(&proofs.b)?,
        })
    }

    fn write(&self) -> Proofs {
        let text = |hash: &Hash| BASE64.encode(hash.as_bytes());
        let write = |side: &Path| WirePath {
            node: text(&side.node),
            path: side.path.iter().map(text).collect(),
        };
        Proofs {
            level: self.at.level,
            index: self.at.index,
            a: write(&self.a),
            b: write(&self.b),
        }
    }
}
