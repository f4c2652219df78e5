//! The heads of the own log that mirrors have cosigned, kept over a restart: a file each, named after the
//! node, with the verifier key of the mirror on its first line and the note behind it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use openfang_audit::cosign::CosignerKey;
use openfang_audit::mirror::NOTE_BYTES_MAX;
use openfang_audit::note::{Note, VKEY_BYTES_MAX};
use openfang_audit::{Origin, SignedHead};
use openfang_id::{NodeId, VerifyingKey};

use crate::files;

/// The most files that are read: more mirrors than a log has are not remembered.
const FILES_MAX: usize = 64;

/// Reads what was saved. What the own log did not sign is passed over with a warning.
pub(super) fn load(
    folder: &Path,
    origin: &Origin,
    key: &VerifyingKey,
) -> io::Result<Vec<(NodeId, CosignerKey, SignedHead)>> {
    let mut found = Vec::new();
    for (node, path) in list(folder)?.into_iter().take(FILES_MAX) {
        match read(&path, origin, key)? {
            Some((mirror, head)) => found.push((node, mirror, head)),
            None => {
                tracing::warn!(path = %path.display(), "not a head of this log that a mirror has cosigned: passed over");
            }
        }
    }
    Ok(found)
}

/// Reads the heads that were saved, of whatever log they are. Nothing is checked.
///
/// # Errors
/// When the folder or a file in it cannot be read.
pub fn notes(folder: &Path) -> io::Result<Vec<String>> {
    let mut notes = Vec::new();
    for (_, path) in list(folder)?.into_iter().take(FILES_MAX) {
        let text = text_of(&path)?;
        let note = text.as_deref().and_then(|text| text.split_once('\n'));
        notes.extend(note.map(|(_vkey, note)| note.to_owned()));
    }
    Ok(notes)
}

/// Names the files that hold no head that a log of this node has signed, whichever of its logs it is.
///
/// # Errors
/// When the folder or a file in it cannot be read.
pub fn damaged(folder: &Path, (node, key): (&NodeId, &VerifyingKey)) -> io::Result<Vec<PathBuf>> {
    let is_signed = |text: &str| {
        let (_vkey, note) = text.split_once('\n')?;
        let origin: Origin = note.lines().next()?.parse().ok()?;
        let own = origin.belongs_to(node);
        (own && SignedHead::open(note, &origin, key).is_ok()).then_some(())
    };
    let mut damaged = Vec::new();
    for (_, path) in list(folder)?.into_iter().take(FILES_MAX) {
        if text_of(&path)?.as_deref().and_then(is_signed).is_none() {
            damaged.push(path);
        }
    }
    Ok(damaged)
}

/// Writes what mirrors hold, and removes what was saved of others.
pub(super) fn save(folder: &Path, held: &[(NodeId, CosignerKey, Note)]) -> io::Result<()> {
    files::create_folder(folder)?;
    for (node, key, note) in held {
        let path = folder.join(node.to_string());
        let text = format!("{key}\n{note}");
        // It means as much before as after a crash: nobody waits for the disk.
        if text_of(&path).ok().flatten().as_deref() != Some(text.as_str()) {
            files::replace_volatile(&path, text.as_bytes())?;
        }
    }
    for (node, path) in list(folder)? {
        if !held.iter().any(|(mirror, ..)| *mirror == node) {
            files::remove(&path)?;
        }
    }
    Ok(())
}

fn list(folder: &Path) -> io::Result<Vec<(NodeId, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(why),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(node) = name.to_str().and_then(|name| name.parse().ok()) {
            found.push((node, entry.path()));
        }
    }
    Ok(found)
}

fn read(
    path: &Path,
    origin: &Origin,
    key: &VerifyingKey,
) -> io::Result<Option<(CosignerKey, SignedHead)>> {
    let parsed = text_of(path)?.and_then(|text| {
        let (mirror, note) = text.split_once('\n')?;
        let head = SignedHead::open(note, origin, key).ok()?;
        Some((mirror.parse().ok()?, head))
    });
    Ok(parsed)
}

fn text_of(path: &Path) -> io::Result<Option<String>> {
    const BYTES_MAX: u64 = (VKEY_BYTES_MAX + 1 + NOTE_BYTES_MAX) as u64;
    let bytes = files::read_plain(path, BYTES_MAX)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Ok(None);
    }
    Ok(String::from_utf8(bytes).ok())
}
