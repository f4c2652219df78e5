//! Who plays: three nodes, and the models their agents answer through.

use std::path::Path;

use crate::cluster::{Node, NodeError, Program, Setup};

use super::model::LocalModel;
use super::scripted::Scripted;

/// Everything that runs during the demonstration.
#[derive(Debug)]
pub(super) struct Cast {
    /// The node that is asked.
    pub(super) a: Node,
    /// The node whose agent calls another.
    pub(super) b: Node,
    /// The node that is called, killed, restarted and tampered with.
    pub(super) c: Node,
    /// What B's agent answers through.
    pub(super) scripted: Scripted,
    /// What C's agent answers through, where a model was asked for.
    pub(super) model: Option<LocalModel>,
}

/// The agent on node-c, as other nodes call it.
pub(super) const TARGET: &str = "scribe@node-c";

impl Cast {
    /// Makes the homes of the nodes; none runs yet.
    pub(super) async fn create(
        program: &Program,
        root: &Path,
        scripted: Scripted,
        model: Option<LocalModel>,
    ) -> Result<Self, NodeError> {
        let secret = program
            .run(root, &["keygen", "--network"])
            .await?
            .stdout
            .trim()
            .to_owned();
        let setup = |name: &str, secret: Option<&String>| Setup {
            name: name.to_owned(),
            secret: secret.cloned(),
            ..Setup::default()
        };
        let a = Node::create(program, root, &setup("node-a", Some(&secret))).await?;
        let b = Node::create(program, root, &setup("node-b", None)).await?;
        let c = Node::create(program, root, &setup("node-c", None)).await?;
        Ok(Self {
            a,
            b,
            c,
            scripted,
            model,
        })
    }

    /// Ends what runs, all at once, and waits until it is gone.
    pub(super) async fn end(&mut self) {
        futures::join!(self.a.end(), self.b.end(), self.c.end());
    }

    /// All nodes.
    pub(super) fn nodes(&mut self) -> [&mut Node; 3] {
        [&mut self.a, &mut self.b, &mut self.c]
    }
}

/// The manifest of an agent without a model.
pub(super) fn echo_agent(name: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"answers with what it got and where it runs\"\nmodule = \"builtin:echo\"\n"
    )
}

/// The manifest of an agent that answers through the model at `base_url`.
pub(super) fn chat_agent(name: &str, base_url: &str, tools: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"answers through a language model\"\nmodule = \"builtin:chat\"\n\n\
         [model]\nprovider = \"local\"\nmodel = \"local\"\nbase_url = \"{base_url}\"\nmax_tokens = 48\ntemperature = 0.0\n\
         system_prompt = \"You are a helpful assistant. Answer in one short sentence.\"\n\n\
         [capabilities]\ntools = [{tools}]\nagent_message = [\"*\"]\n"
    )
}
