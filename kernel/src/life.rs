//! How agents come to be, come back, and go.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openfang_audit::{Event, Public};
use openfang_id::{AgentId, AgentKey};

use crate::handle::Kernel;
use crate::manifest::MANIFEST_BYTES_MAX;
use crate::registry::{Agent, Body, Module, Unusable};
use crate::store::StoredAgent;
use crate::{
    AgentInfo, KillError, Manifest, OpenError, Principal, Restarted, SpawnError, StoreError, clock,
    entropy,
};

/// The file of an agent in its folder.
const MANIFEST_FILE: &str = "agent.toml";
/// Why a change that was announced was not made.
const DATABASE_FAILED: &str = "the database failed";

impl Kernel {
    /// Makes an agent of a manifest. Its creation is in the audit log before it takes effect. When the
    /// same manifest stands in the agents folder, under the agent's name, it is the agent of that file.
    ///
    /// Cancel safety: when this is dropped, the agent is made all the same.
    ///
    /// # Errors
    /// When the name is taken, the module unknown, or it can be neither logged nor stored.
    pub async fn spawn(
        &self,
        manifest: Manifest,
        principal: &Principal,
    ) -> Result<AgentInfo, SpawnError> {
        let (kernel, principal) = (self.clone(), principal.clone());
        let spawned = self.carry_out(async move {
            let file = file_of(&kernel.config().agents_dir, &manifest);
            kernel.spawn_of(manifest, file, Some(&principal)).await
        });
        spawned.await.unwrap_or(Err(SpawnError::ShuttingDown))
    }

    /// Ends an agent for good, with its sessions and its memory. That is in the audit log before it
    /// takes effect. An agent that came from the agents folder does not come back from there.
    ///
    /// Cancel safety: when this is dropped, the agent ends all the same.
    ///
    /// # Errors
    /// When it is unknown, or it can be neither logged nor stored.
    pub async fn kill(&self, id: AgentId, principal: &Principal) -> Result<(), KillError> {
        let (kernel, principal) = (self.clone(), principal.clone());
        let killed = self.carry_out(async move { kernel.kill_now(id, &principal).await });
        killed.await.unwrap_or(Err(KillError::ShuttingDown))
    }

    async fn kill_now(&self, id: AgentId, principal: &Principal) -> Result<(), KillError> {
        let agent = self.living(id)?;
        let user = principal.to_string();
        let entry = Event::agent_delete(&id, &agent.name, principal.in_log(&user));
        let announced = self.audit().announce(entry).await;
        let announced = announced.map_err(KillError::NotLogged)?;
        if let Err(why) = self.store().delete_agent(id).await {
            announced.failed(DATABASE_FAILED);
            return Err(why.into());
        }
        self.registry().remove(id);
        agent.cut(true);
        announced.done();
        tracing::info!(agent.id = %id, agent.name = %agent.name, "an agent was killed");
        self.publish();
        Ok(())
    }

    /// Cuts the turns of an agent that run or wait; its sessions and its memory stay.
    ///
    /// Cancel safety: when this is dropped, they are cut all the same.
    ///
    /// # Errors
    /// When it is unknown, or it cannot be logged.
    pub async fn restart(
        &self,
        id: AgentId,
        principal: &Principal,
    ) -> Result<Restarted, KillError> {
        let (kernel, principal) = (self.clone(), principal.clone());
        let restarted = self.carry_out(async move { kernel.restart_now(id, &principal).await });
        restarted.await.unwrap_or(Err(KillError::ShuttingDown))
    }

    async fn restart_now(
        &self,
        id: AgentId,
        principal: &Principal,
    ) -> Result<Restarted, KillError> {
        let agent = self.living(id)?;
        let what = format!("agent {} ({id}) is restarted", agent.name);
        let user = principal.to_string();
        let entry = Event::config_change_by(Public::text(&what), principal.in_log(&user));
        let announced = self.audit().announce(entry).await;
        let announced = announced.map_err(KillError::NotLogged)?;
        let task_cancelled = agent.cut(false);
        announced.done();
        tracing::info!(agent.id = %id, agent.name = %agent.name, "an agent was restarted");
        self.publish();
        Ok(Restarted {
            previous_state: agent.state(),
            task_cancelled,
        })
    }

    fn living(&self, id: AgentId) -> Result<Arc<Agent>, KillError> {
        if self.is_closing() {
            return Err(KillError::ShuttingDown);
        }
        let found = self.registry().find(&AgentKey::Id(id));
        found.ok_or(KillError::Unknown { id })
    }

    /// Makes an agent, for whoever asks for it; without anybody it was found in the agents folder.
    async fn spawn_of(
        &self,
        manifest: Manifest,
        file: Option<String>,
        asked_by: Option<&Principal>,
    ) -> Result<AgentInfo, SpawnError> {
        if self.is_closing() {
            return Err(SpawnError::ShuttingDown);
        }
        let module = Module::find(&manifest.module)?;
        let id = AgentId::from_random(entropy::bytes16());
        let now_ms = clock::unix_ms();
        let stored = StoredAgent {
            id,
            name: manifest.name.clone(),
            manifest: manifest.text().to_owned(),
            file,
            created_ms: now_ms,
            active_ms: now_ms,
        };
        let limits = &self.config().limits;
        let reserved = self.registry().reserve(&manifest.name, id, limits.agents)?;
        let itself = Principal::node();
        let principal = asked_by.unwrap_or(&itself);
        let user = principal.to_string();
        let entry = Event::agent_create(&id, &manifest.name, principal.in_log(&user));
        let announced = match asked_by {
            Some(_) => self.audit().announce(entry).await,
            None => self.audit().announce_in_doubt(entry).await,
        };
        let announced = announced.map_err(SpawnError::NotLogged)?;
        if let Err(why) = self.store().insert_agent(stored.clone()).await {
            announced.failed(DATABASE_FAILED);
            return Err(why.into());
        }
        let agent = Arc::new(Agent::new(&stored, Ok(Body { manifest, module }), limits));
        self.registry().insert(Arc::clone(&agent));
        drop(reserved);
        announced.done();
        tracing::info!(agent.id = %id, agent.name = %agent.name, "an agent was spawned");
        self.publish();
        Ok(agent.info(&self.config().default_model))
    }
}

/// Brings back the agents of the database.
pub(crate) async fn bring_back(kernel: &Kernel) -> Result<(), OpenError> {
    for stored in kernel.store().agents().await? {
        let body = read_body(&stored.manifest, stored.name.as_str());
        if let Err(why) = &body {
            tracing::error!(agent.id = %stored.id, agent.name = %stored.name, "an agent cannot be brought back: {why}");
        }
        let agent = Agent::new(&stored, body, &kernel.config().limits);
        kernel.registry().insert(Arc::new(agent));
    }
    Ok(())
}

fn read_body(text: &str, name: &str) -> Result<Body, Unusable> {
    let (manifest, _) = Manifest::parse(text, name)?;
    let module = Module::find(&manifest.module)?;
    Ok(Body { manifest, module })
}

/// Spawns the agents of the folder that are not there yet, and takes over what has changed in the
/// files of those that are. What is wrong with one file is logged and keeps no other from running.
pub(crate) async fn spawn_from_folder(kernel: &Kernel) -> Result<(), StoreError> {
    let stored = kernel.store().agents().await?;
    let dismissed = kernel.store().dismissed().await?;
    for (file, path) in manifest_files(&kernel.config().agents_dir) {
        if dismissed.contains(&file) {
            continue;
        }
        let Some(manifest) = read_manifest(&path) else {
            continue;
        };
        let known = stored
            .iter()
            .find(|agent| agent.file.as_ref() == Some(&file));
        match known {
            Some(known) if known.manifest == manifest.text() => {}
            Some(known) => take_over(kernel, known, manifest, &path).await?,
            None if stored.iter().any(|agent| agent.name == manifest.name) => {
                adopt(kernel, &stored, &manifest, file).await?;
            }
            None => {
                if let Err(why) = kernel.spawn_of(manifest, Some(file), None).await {
                    tracing::error!(path = %path.display(), "an agent was not spawned: {why}");
                }
            }
        }
    }
    Ok(())
}

/// Makes an agent that was spawned before its file was known the agent of that file, so that the file
/// does not bring it back once it was killed.
async fn adopt(
    kernel: &Kernel,
    stored: &[StoredAgent],
    manifest: &Manifest,
    file: String,
) -> Result<(), StoreError> {
    let same = |agent: &&StoredAgent| {
        agent.file.is_none() && agent.name == manifest.name && agent.manifest == manifest.text()
    };
    match stored.iter().find(same) {
        Some(agent) => kernel.store().update_file(agent.id, file).await,
        None => Ok(()),
    }
}

async fn take_over(
    kernel: &Kernel,
    known: &StoredAgent,
    manifest: Manifest,
    path: &Path,
) -> Result<(), StoreError> {
    let module = Module::find(&manifest.module);
    let module = match module {
        Ok(module) if manifest.name == known.name => module,
        Ok(_) => {
            tracing::error!(path = %path.display(), "not taken over: the name of an agent cannot change; kill {} and spawn the file anew", known.name);
            return Ok(());
        }
        Err(why) => {
            tracing::error!(path = %path.display(), "not taken over: {why}");
            return Ok(());
        }
    };
    let what = format!("the manifest of agent {} has changed", known.name);
    let entry = Event::config_change(Public::text(&what));
    let announced = match kernel.audit().announce_in_doubt(entry).await {
        Ok(announced) => announced,
        Err(why) => {
            tracing::error!(path = %path.display(), "not taken over, because it cannot be logged: {why}");
            return Ok(());
        }
    };
    let text = manifest.text().to_owned();
    if let Err(why) = kernel.store().update_manifest(known.id, text).await {
        announced.failed(DATABASE_FAILED);
        return Err(why);
    }
    announced.done();
    let agent = Agent::new(
        known,
        Ok(Body { manifest, module }),
        &kernel.config().limits,
    );
    kernel.registry().insert(Arc::new(agent));
    Ok(())
}

/// Returns the file of the agents folder that holds this manifest, if it stands there under its name.
fn file_of(agents_dir: &Path, manifest: &Manifest) -> Option<String> {
    let file = format!("{}/{MANIFEST_FILE}", manifest.name);
    let text = read_text(&agents_dir.join(&file)).ok()?;
    (text == manifest.text()).then_some(file)
}

/// Returns the manifests of the folder, in the order of their names.
fn manifest_files(agents_dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = match std::fs::read_dir(agents_dir) {
        Ok(entries) => entries,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(why) => {
            tracing::error!(path = %agents_dir.display(), %why, "the agents folder cannot be read");
            return Vec::new();
        }
    };
    let mut files: Vec<(String, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let file = format!("{}/{MANIFEST_FILE}", entry.file_name().to_str()?);
            let path = agents_dir.join(&file);
            path.is_file().then_some((file, path))
        })
        .collect();
    files.sort();
    files
}

fn read_manifest(path: &Path) -> Option<Manifest> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(why) => {
            tracing::error!(path = %path.display(), %why, "a manifest cannot be read");
            return None;
        }
    };
    match Manifest::parse(&text, &path.display().to_string()) {
        Ok((manifest, warnings)) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            Some(manifest)
        }
        Err(why) => {
            tracing::error!("an agent was not spawned: {why}");
            None
        }
    }
}

/// Reads at most a little more than a manifest may have. Anything but a plain file would not end, or
/// wait for somebody to write.
fn read_text(path: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MANIFEST_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}
