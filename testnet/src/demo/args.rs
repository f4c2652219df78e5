//! Arguments of `openfang-testnet demo`.

/// Starts three nodes on this machine and shows what a mesh of them does.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON object a step, and a summary, instead of text.
    #[arg(long)]
    pub json: bool,
    /// Leave the nodes running, also when a step fails, and print how to talk to them.
    #[arg(long)]
    pub keep: bool,
    /// Let the agent on node-c answer through a real language model.
    #[arg(long, value_enum)]
    pub model: Option<Model>,
}

/// Language models that the demonstration can set up by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    /// SmolLM2 135M Instruct, about 130 MB with its server, run on this machine.
    Smollm2,
}
