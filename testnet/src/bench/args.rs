//! Arguments of `openfang-testnet bench`.

/// Measures this program beside the bare thing, in one run.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to measure; everything when left out.
    #[arg(value_enum)]
    pub what: Vec<What>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// How many operations each caller makes.
    #[arg(long, default_value_t = 2_000)]
    pub rounds: usize,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// From the start of a node to its first answer, and what it uses when idle.
    Start,
    /// A call to an agent on another node that does nothing, beside a bare libp2p echo.
    Call,
    /// An HTTP request on one node to an agent on another.
    Http,
    /// Durable appends to the audit log, beside the bare disk.
    Audit,
    /// From an entry to a head that others have cosigned and copied; and a wiped log of a million
    /// entries, restored.
    Replicate,
}

impl What {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Call => "call",
            Self::Http => "http",
            Self::Audit => "audit",
            Self::Replicate => "replicate",
        }
    }
}

impl Args {
    pub(super) fn wanted(&self) -> Vec<What> {
        if self.what.is_empty() {
            return vec![
                What::Start,
                What::Call,
                What::Http,
                What::Audit,
                What::Replicate,
            ];
        }
        self.what.clone()
    }
}
