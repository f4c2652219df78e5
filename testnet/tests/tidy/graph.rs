//! What may depend on what: the arrows between the crates, the purity of the cores, and who may
//! name a technology.

use std::collections::BTreeSet;

use cargo_metadata::Metadata;

/// Every crate of the house and the crates of the house it may use, tests included. Arrows point
/// down: `mesh` and `kernel` do not know each other, and nobody knows `testnet`.
pub(crate) const ARROWS: [(&str, &[&str]); 11] = [
    ("openfang-id", &[]),
    ("openfang-audit", &["openfang-id"]),
    ("openfang-sandbox", &["openfang-id"]),
    (
        "openfang-kernel",
        &["openfang-id", "openfang-audit", "openfang-sandbox"],
    ),
    ("openfang-ofp", &["openfang-id", "openfang-audit"]),
    (
        "openfang-mesh",
        &["openfang-id", "openfang-audit", "openfang-ofp"],
    ),
    ("openfang-schema", &[]),
    (
        "openfang-api",
        &[
            "openfang-id",
            "openfang-audit",
            "openfang-kernel",
            "openfang-mesh",
            "openfang-schema",
        ],
    ),
    (
        "openfang-node",
        &[
            "openfang-id",
            "openfang-audit",
            "openfang-kernel",
            "openfang-ofp",
            "openfang-mesh",
            "openfang-api",
            "openfang-schema",
        ],
    ),
    (
        "openfang",
        &[
            "openfang-id",
            "openfang-audit",
            "openfang-node",
            "openfang-schema",
        ],
    ),
    (
        "openfang-testnet",
        &[
            "openfang-id",
            "openfang-audit",
            "openfang-kernel",
            "openfang-ofp",
            "openfang-mesh",
            "openfang-schema",
            "openfang-node",
            "openfang",
        ],
    ),
];

/// Crates that could run anywhere at any time: nothing below them knows a runtime, a socket, a
/// clock or a source of random numbers.
pub(crate) const PURE: [&str; 3] = ["openfang-id", "openfang-ofp", "openfang-audit"];

/// What a pure crate must not reach. A name that ends in `*` stands for all that begin so.
const IMPURE: [&str; 22] = [
    "tokio*",
    "async-std",
    "smol",
    "mio",
    "socket2",
    "libp2p*",
    "quinn*",
    "hyper*",
    "reqwest",
    "axum*",
    "h2",
    "rustls*",
    "ring",
    "aws-lc-*",
    "rand",
    "getrandom",
    "rand_chacha",
    "chrono",
    "if-watch",
    "rustix",
    "nix",
    "rusqlite",
];

/// Who may name a technology in its own dependencies (those of tests apart).
const TECHNOLOGIES: [(&str, &[&str]); 10] = [
    ("libp2p*", &["openfang-mesh", "openfang-testnet"]),
    ("yamux", &["openfang-mesh"]),
    ("wasmtime*", &["openfang-sandbox"]),
    ("axum*", &["openfang-api", "openfang-testnet"]),
    ("hyper*", &["openfang-api", "openfang-testnet"]),
    ("rusqlite", &["openfang-kernel"]),
    (
        "reqwest",
        &["openfang-kernel", "openfang", "openfang-testnet"],
    ),
    ("clap", &["openfang", "openfang-testnet"]),
    ("anyhow", &["openfang", "openfang-testnet"]),
    (
        "tracing-subscriber",
        &["openfang", "openfang-node", "openfang-testnet"],
    ),
];

/// One dependency as a manifest states it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Not one of tests or of a build script.
    pub(crate) shipped: bool,
}

/// The members of the workspace and everything their manifests name.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) members: BTreeSet<String>,
    pub(crate) edges: BTreeSet<Edge>,
}

impl Graph {
    pub(crate) fn of(metadata: &Metadata) -> Graph {
        let packages = metadata.workspace_packages();
        let edges = packages.iter().flat_map(|package| {
            package.dependencies.iter().map(|dependency| Edge {
                from: package.name.to_string(),
                to: dependency.name.clone(),
                shipped: dependency.kind == cargo_metadata::DependencyKind::Normal,
            })
        });
        Graph {
            members: packages
                .iter()
                .map(|package| package.name.to_string())
                .collect(),
            edges: edges.collect(),
        }
    }

    /// Arrows that the table does not have, and crates that it does not know or that are gone.
    pub(crate) fn wrong_arrows(&self) -> Vec<String> {
        let mut found = Vec::new();
        for member in &self.members {
            if !ARROWS.iter().any(|(name, _)| name == member) {
                found.push(format!("{member} has no row in the table of arrows"));
            }
        }
        for (name, allowed) in ARROWS {
            if !self.members.contains(name) {
                found.push(format!(
                    "{name} has a row in the table of arrows but is no crate"
                ));
            }
            let wrong = self.edges.iter().filter(|edge| {
                edge.from == name
                    && self.members.contains(&edge.to)
                    && !allowed.contains(&edge.to.as_str())
            });
            found.extend(wrong.map(|edge| {
                let (from, to) = (&edge.from, &edge.to);
                format!("{from} depends on {to}, which the arrows do not allow")
            }));
        }
        found
    }

    /// Technologies named outside the crates that own them.
    pub(crate) fn stray_technologies(&self) -> Vec<String> {
        let stray = |edge: &&Edge, technology: &str, owners: &[&str]| {
            edge.shipped && matches(technology, &edge.to) && !owners.contains(&edge.from.as_str())
        };
        TECHNOLOGIES
            .iter()
            .flat_map(|(technology, owners)| {
                let edges = self
                    .edges
                    .iter()
                    .filter(|edge| stray(edge, technology, owners));
                edges.map(|edge| {
                    let (from, to) = (&edge.from, &edge.to);
                    format!(
                        "{from} depends on {to}, which only {} may",
                        owners.join(", ")
                    )
                })
            })
            .collect()
    }
}

/// What a pure crate reaches and must not, from the output of `cargo tree --prefix depth`: one
/// line a crate, its depth in front of its name.
pub(crate) fn impurities(tree: &str) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut found = BTreeSet::new();
    for line in tree.lines() {
        let name_at = line
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(line.len());
        let (depth, rest) = line.split_at(name_at);
        let (Ok(depth), Some(name)) = (depth.parse(), rest.split_whitespace().next()) else {
            continue;
        };
        path.truncate(depth);
        path.push(name);
        if IMPURE.iter().any(|pattern| matches(pattern, name)) {
            let root = path.first().unwrap_or(&name);
            found.insert(format!(
                "{root} is to be pure, but reaches {}",
                path.join(" -> ")
            ));
        }
    }
    found.into_iter().collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str, shipped: bool) -> Edge {
        Edge {
            from: from.to_owned(),
            to: to.to_owned(),
            shipped,
        }
    }

    fn graph(edges: &[Edge]) -> Graph {
        let members = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
        Graph {
            members,
            edges: edges.iter().cloned().collect(),
        }
    }

    #[test]
    fn a_wrong_arrow_names_both_ends() {
        let upward = graph(&[edge("openfang-kernel", "openfang-mesh", true)]);
        assert_eq!(
            upward.wrong_arrows(),
            ["openfang-kernel depends on openfang-mesh, which the arrows do not allow"]
        );
        let for_tests = graph(&[edge("openfang-id", "openfang-testnet", false)]);
        assert_eq!(for_tests.wrong_arrows().len(), 1);
        let down = graph(&[
            edge("openfang-mesh", "openfang-ofp", true),
            edge("openfang-id", "subtle", true),
        ]);
        assert!(down.wrong_arrows().is_empty());
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_found() {
        let mut extra = graph(&[]);
        extra.members.insert("openfang-extra".to_owned());
        assert_eq!(
            extra.wrong_arrows(),
            ["openfang-extra has no row in the table of arrows"]
        );
        let mut fewer = graph(&[]);
        fewer.members.remove("openfang-sandbox");
        assert_eq!(
            fewer.wrong_arrows(),
            ["openfang-sandbox has a row in the table of arrows but is no crate"]
        );
    }

    #[test]
    fn the_table_has_no_circle_and_names_only_its_rows() {
        let rows: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
        for (name, allowed) in ARROWS {
            for to in allowed {
                assert!(rows.contains(to), "{to} of {name} has no row");
                let back = ARROWS
                    .iter()
                    .find(|(row, _)| row == to)
                    .is_some_and(|(_, a)| a.contains(&name));
                assert!(!back, "{name} and {to} name each other");
            }
        }
        let apart = |a: &str, b: &str| {
            ARROWS
                .iter()
                .all(|(name, allowed)| *name != a || !allowed.contains(&b))
        };
        assert!(
            apart("openfang-kernel", "openfang-mesh") && apart("openfang-mesh", "openfang-kernel")
        );
        assert!(rows.iter().all(|row| apart(row, "openfang-testnet")));
    }

    #[test]
    fn a_stray_technology_is_found() {
        let stray = graph(&[
            edge("openfang-api", "libp2p-core", true),
            edge("openfang-mesh", "libp2p", true),
            edge("openfang-kernel", "axum", false),
        ]);
        assert_eq!(
            stray.stray_technologies(),
            ["openfang-api depends on libp2p-core, which only openfang-mesh, openfang-testnet may"]
        );
    }

    #[test]
    fn an_impure_core_is_found_with_the_way_there() {
        let tree = "0openfang-ofp v0.1.0 (path)\n1hmac v0.13.0\n2digest v0.11.3\n1time v0.3.55\n\
                    2getrandom v0.4.3\n3libc v0.2.0\n1tokio-util v0.7.0\n";
        assert_eq!(
            impurities(tree),
            [
                "openfang-ofp is to be pure, but reaches openfang-ofp -> time -> getrandom",
                "openfang-ofp is to be pure, but reaches openfang-ofp -> tokio-util",
            ]
        );
        assert!(impurities("0openfang-ofp v0.1.0\n1hmac v0.13.0\n2randomly v1.0.0\n").is_empty());
    }
}
