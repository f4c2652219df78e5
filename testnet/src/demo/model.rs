//! A real language model on this machine, set up by the script beside this crate.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::cluster::{Expired, NotYet, until};

/// Two packages of about 130 MB together, over a slow line.
const SETUP_LIMIT: Duration = Duration::from_secs(900);
/// Loading the model.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// What the script answers when its packages cannot be had.
const UNAVAILABLE: i32 = 3;

/// The model server, while it runs.
#[derive(Debug)]
pub(super) struct LocalModel {
    /// Where it answers: `http://127.0.0.1:PORT/v1`.
    pub(super) base_url: String,
    server: Child,
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelError {
    /// The script could not be run.
    #[error("cannot run {path}: {source}")]
    Script {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The packages cannot be had here.
    #[error("the packages of the model cannot be had from here")]
    Unavailable,
    /// The script failed.
    #[error("setting up the model failed with exit {0}")]
    Setup(i32),
    /// The server did not come up.
    #[error(transparent)]
    Late(#[from] Expired),
}

impl LocalModel {
    /// Installs what is missing, starts the server and waits until it answers.
    /// Unless it may outlive this program, it ends with it.
    pub(super) async fn start(folder: &Path, outliving: bool) -> Result<Self, ModelError> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/serve.sh");
        let failed = |source| ModelError::Script {
            path: script.clone(),
            source,
        };
        let setup = Command::new("bash")
            .arg(&script)
            .arg("setup")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .status();
        let status = match tokio::time::timeout(SETUP_LIMIT, setup).await {
            Ok(status) => status.map_err(failed)?,
            Err(_elapsed) => return Err(ModelError::Unavailable),
        };
        match status.code() {
            Some(0) => {}
            Some(UNAVAILABLE) => return Err(ModelError::Unavailable),
            code => return Err(ModelError::Setup(code.unwrap_or(-1))),
        }
        let port_file = folder.join("model.address");
        let server = Command::new("bash")
            .arg(&script)
            .args(["run", "--port-file"])
            .arg(&port_file)
            .args((!outliving).then_some("--with-parent"))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (address, _) = until("the model to answer", READY_LIMIT, || async {
            let text = std::fs::read_to_string(&port_file).map_err(NotYet::saw)?;
            let text = text.trim().to_owned();
            if text.is_empty() {
                Err(NotYet::saw("an empty address"))
            } else {
                Ok(text)
            }
        })
        .await?;
        Ok(Self {
            base_url: format!("http://{address}/v1"),
            server,
        })
    }

    /// Gives the process away, to be left running after this program ends.
    pub(super) fn leave_running(self) -> Child {
        self.server
    }
}
