//! What can be typed behind `openfang audit`.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand, ValueEnum};

use super::{Json, Witness};

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Check the whole log: is it what was signed, what do witnesses and peers hold, is evidence known.
    Verify(Verify),
    /// Print entries, the newest last.
    Show(Show),
    /// Print the whole log in one piece.
    Export(Export),
    /// Print a proof that an entry is in this log, for others to check offline.
    Prove(Prove),
    /// Check a proof, offline: exit code 0 it holds, 1 it does not, 2 it cannot be read.
    Check(Check),
    /// Print the policy that others check proofs of this log with: its key, its witnesses, the quorum.
    Policy,
    /// List the evidence that this node knows: proofs that a log or a cosigner has contradicted itself.
    Evidence(Evidence),
    /// Mend the damaged log of this node, which must not run, from copies that its peers have.
    Repair(Repair),
    /// Erase the personal values of entries, or of a person, for good. The entries and all proofs stay.
    Redact(Redact),
    /// The peers that cosign the heads of this log.
    #[command(subcommand)]
    Witness(Witness),
}

#[derive(Debug, Group)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Evidence {
    #[command(subcommand)]
    pub(crate) verify: Option<EvidenceVerify>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceVerify {
    /// Check a file of evidence, offline: exit code 0 it proves what it says, 1 it does not, 2 it cannot be read.
    Verify(EvidenceFile),
}

#[derive(Debug, Group)]
pub(crate) struct EvidenceFile {
    /// The evidence; - reads stdin.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Demand that this policy knows the key that is accused.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Group)]
#[command(
    after_help = "Exit codes: 0 intact; 1 tampered, or rolled back behind what witnesses or peers hold;\n\
                  2 unreadable, or with --peers nobody answered; 3 intact, but stale or below the quorum of its\n\
                  witnesses; 4 there is evidence that a log or a cosigner has contradicted itself.\n\
                  Which wins: evidence against this log, then 1, 2, evidence against others, then 3."
)]
pub(crate) struct Verify {
    /// Ask the running node what its peers hold of this log, and compare.
    #[arg(long)]
    pub(crate) peers: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Group)]
pub(crate) struct Show {
    /// Only entries about this agent: id or name.
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Only entries of these kinds, such as auth_failed, or 'auth_failed|api_key', or auth_failed,api_key.
    #[arg(long, value_name = "KIND[,KIND]")]
    pub(crate) filter: Option<String>,
    /// Only entries that name this node: its id, the name of one that the running node knows, or the name of its
    /// log, of which the part up to the first dot is enough: n-0123456789abcdef.
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Only entries from this time on: RFC 3339, UTC where no zone is given, or how long ago, such as 2h, 30m
    /// or 1d12h.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Then print what is written from now on, until it is interrupted.
    #[arg(long)]
    pub(crate) follow: bool,
    /// At most so many, the newest; with --follow, of those that are there already.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// Show the personal values that the lines commit to, as far as they are not erased.
    #[arg(long)]
    pub(crate) reveal: bool,
    /// Print the lines as they are in the log; with --reveal, each beside its personal values.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Group)]
#[command(
    after_help = "openfang audit redact 17 18 --reason 'asked by the subject'\n\
                  openfang audit redact --subject 192.0.2.7 --reason 'no longer needed'\n\n\
                  An entry of the log tells which entries, why, and when. What it tells cannot be erased: name\n\
                  nobody in the reason."
)]
pub(crate) struct Redact {
    /// The numbers of the entries.
    #[arg(value_name = "SEQ", required_unless_present = "subject")]
    pub(crate) seqs: Vec<u64>,
    /// Whose values, in all entries: a name, or an address of a machine without its port.
    #[arg(long, value_name = "NAME", conflicts_with = "seqs")]
    pub(crate) subject: Option<String>,
    /// Why; stands in the log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Group)]
pub(crate) struct Export {
    /// One JSON array, the lines as they are, or a directory that anyone can serve and check.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    pub(crate) format: Format,
    /// Where to: for tlog a directory, empty or new; otherwise a file that does not exist, instead of stdout.
    #[arg(long, value_name = "PATH", required_if_eq("format", "tlog"))]
    pub(crate) out: Option<PathBuf>,
    /// Tell progress on stderr, and with --out what was written on stdout, as JSON.
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON array.
    Json,
    /// The lines as they are, which is what was hashed.
    Jsonl,
    /// A C2SP tlog-tiles directory: the cosigned head, the tiles and the entries.
    Tlog,
}

#[derive(Debug, Group)]
#[command(after_help = "openfang audit prove 17 > 17.tlog-proof\n\
                  openfang audit policy > policy\n\
                  openfang audit check 17.tlog-proof --policy policy    (anywhere, without a node)\n\n\
                  The proof is a C2SP tlog-proof: the place of the entry, the hashes from it to the root, and\n\
                  the head that the witnesses have cosigned. Its extra line holds the entry itself.")]
pub(crate) struct Prove {
    /// The number of the entry.
    #[arg(value_name = "SEQ")]
    pub(crate) seq: u64,
    /// Write it into this file, which must not exist, instead of stdout.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Leave the entry itself out: whoever checks the proof must have its line from elsewhere.
    #[arg(long)]
    pub(crate) without_line: bool,
    /// How many seconds to wait for the witnesses, where the node runs and they have not cosigned a head over
    /// the entry yet. Then it is proved under the newest head that this node has signed.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) wait: u64,
}

#[derive(Debug, Group)]
pub(crate) struct Check {
    /// The proof; - reads stdin.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Whose keys are believed: a C2SP policy, as `openfang audit policy` prints it. Without it, the one of
    /// this node, and only its own log can be checked.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The line that is said to be the entry, as a file or as the text itself. Without it, the one in the
    /// proof is checked.
    #[arg(long, value_name = "FILE|TEXT")]
    pub(crate) line: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Group)]
#[command(
    long_about = "Mend the damaged log of this node, which must not run, from copies that its peers have.\n\n\
                  Every line is compared with a head that this log has signed. Only what is bad is fetched; the\n\
                  bad bytes are kept in audit.d/evidence, and the next start writes about them. What was written\n\
                  behind the end of the log is cut off, and kept as well; that needs no copy.",
    after_help = "Exit codes: 0 mended, or nothing was damaged; 1 it could not be mended; 3 nobody has a copy, or no\n\
                  node is called as --from says; 5 nobody could be reached."
)]
pub(crate) struct Repair {
    /// Use the copy of this node alone: its name or id.
    #[arg(long, value_name = "NODE")]
    pub(crate) from: Option<String>,
    /// On a node without a mesh whose signing floor is gone: take the entries as they stand.
    #[arg(long, conflicts_with = "from")]
    pub(crate) accept: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}
