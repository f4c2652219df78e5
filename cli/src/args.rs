//! What can be typed.

mod audit;

use std::path::PathBuf;

use clap::{Args as Group, Parser, Subcommand};
use openfang_id::NodeName;

pub(crate) use audit::{
    Audit, Check, Evidence, EvidenceFile, EvidenceVerify, Export, Format, Prove, Redact, Repair,
    Show, Verify,
};

/// Turns this machine into a node of an agent mesh.
#[derive(Debug, Parser)]
#[command(
    name = "openfang",
    version = openfang_node::VERSION,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 ok, 1 failure (audit: tampered), 2 usage (audit: unreadable), 3 not found (audit\n\
                  verify: stale), 4 denied (audit verify: evidence), 5 daemon or node unreachable, 6 timeout,\n\
                  64 bad configuration.\n\
                  Which answer of a node ends with which of them: docs/CONFIG.md.\n\
                  The home is OPENFANG_HOME, or ~/.openfang. Configuration: docs/CONFIG.md."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the home of a node: configuration, keys and a first agent. Destroys nothing.
    Init(Init),
    /// Print a new API key, or a new network secret.
    Keygen {
        /// Print a network secret instead of an API key.
        #[arg(long)]
        network: bool,
    },
    /// Run the node, in the foreground unless told otherwise.
    Start(Start),
    /// Stop the running node and wait until it is gone.
    Stop,
    /// Stop the node if it runs, then start it in the background.
    Restart,
    /// Say whether the node runs and how it is. Exit code 5 when it does not run.
    Status(Json),
    /// List the other nodes of the mesh.
    Peers(Json),
    /// Join the mesh of another node, now and after every restart. With - a ticket comes from stdin.
    Join(Join),
    /// Print a ticket with which another node can join. It holds the network secret.
    Ticket,
    /// Agents: make, spawn, list, kill, restart, chat.
    #[command(subcommand)]
    Agent(Agent),
    /// Send a message to an agent anywhere in the mesh and print the answer.
    Message(Message),
    /// The audit log of this node: verify, show, export, prove; read from its files.
    #[command(subcommand)]
    Audit(Audit),
    /// The configuration.
    #[command(subcommand)]
    Config(Config),
    /// Print the version of this program.
    Version(Json),
}

#[derive(Debug, Group)]
pub(crate) struct Json {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Init {
    /// Ask nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Begin a mesh: make a network secret too, so that `openfang ticket` works.
    #[arg(long)]
    pub(crate) network: bool,
    /// What this node is called: a name that no other node of its mesh has. Else the name of the machine.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<NodeName>,
}

#[derive(Debug, Group)]
pub(crate) struct Start {
    /// Run it in the background, writing to openfang.log in the home.
    #[arg(long)]
    pub(crate) detach: bool,
    /// What --detach runs: a terminal that hangs up does not end it.
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub(crate) in_background: bool,
    /// End when the standard input, a pipe, is closed: for programs that start nodes and may die.
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub(crate) until_stdin_closes: bool,
}

#[derive(Debug, Group)]
#[command(after_help = "openfang ticket | ssh other-machine openfang join -\n\n\
                  A ticket holds the network secret. One that is written as an argument can be seen by\n\
                  every user of the machine, in the list of processes, and stays in the history of the\n\
                  shell: hand it over through stdin, or in a file.")]
pub(crate) struct Join {
    /// What to join: `-` for a ticket from stdin, or where a node of the mesh listens, as host:port or a
    /// multiaddr. A ticket itself works too, and can be seen by others.
    #[arg(value_name = "-|ADDR|TICKET", required_unless_present = "ticket_file")]
    pub(crate) target: Option<String>,
    /// A file that holds a ticket.
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// The environment variable that holds the network secret; needed with an address unless this
    /// node has the secret already.
    #[arg(long, value_name = "NAME")]
    pub(crate) secret_env: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agent {
    /// Write a manifest for a new agent, and spawn it when the node runs.
    New(NewAgent),
    /// Spawn an agent from a manifest file; - reads stdin.
    Spawn {
        /// The manifest.
        file: PathBuf,
        #[command(flatten)]
        json: Json,
    },
    /// List the agents of the mesh.
    List {
        /// Only those of this node.
        #[arg(long)]
        local: bool,
        #[command(flatten)]
        json: Json,
    },
    /// End an agent of this node.
    Kill {
        /// UUID or name.
        agent: String,
    },
    /// Start an agent of this node anew.
    Restart {
        /// UUID or name.
        agent: String,
    },
    /// Talk to an agent, line by line, until the end of input.
    Chat {
        /// UUID or name, with @NODE when several nodes have one of that name.
        agent: String,
    },
}

#[derive(Debug, Group)]
pub(crate) struct NewAgent {
    /// What it is called.
    pub(crate) name: String,
    /// What runs it; builtin:chat when a model is configured, builtin:echo otherwise.
    #[arg(long)]
    pub(crate) module: Option<String>,
    /// What it is for.
    #[arg(long, default_value = "")]
    pub(crate) description: String,
}

#[derive(Debug, Group)]
pub(crate) struct Message {
    /// UUID or name, with @NODE when several nodes have one of that name.
    pub(crate) agent: String,
    /// The message; - reads stdin.
    pub(crate) text: String,
    /// Print JSON: the reply, or with --stream one event a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the answer while it is written.
    #[arg(long)]
    pub(crate) stream: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Witness {
    /// Print who cosigns the heads of this log and who keeps copies of it, and how far they are.
    Status(Json),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Read the configuration as `start` would and report every problem.
    Check,
    /// Print what is in force, secrets redacted.
    Show(Json),
}
