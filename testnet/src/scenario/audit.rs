//! Replicated audit, on five real nodes: act, cosign, copy, prove offline; then one node is wiped, one
//! put back to an earlier state, one loses a byte, and one signs two histories.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Finished, Node, NodeError, NotYet, Program, Setup, until};
use crate::demo::report::Report;
use crate::demo::steps::Failure;

/// The nodes.
const NAMES: [&str; 5] = ["node-a", "node-b", "node-c", "node-d", "node-e"];
/// What must happen sooner or later gets this long, on a busy machine too.
const EVENTUALLY: Duration = Duration::from_secs(45);
/// How many messages each agent gets: its log then has more than one bundle of 256 entries.
const MESSAGES: usize = 300;
/// How soon evidence is known everywhere, once two histories meet.
const EVIDENCE_WITHIN: Duration = Duration::from_secs(5);
/// What belongs to an audit log in a home.
const LOG_FILES: [&str; 2] = ["audit.jsonl", "audit.d"];

/// Plays all steps.
pub(super) async fn play(
    program: &Program,
    root: &Path,
    nodes: &mut Vec<Node>,
    report: &mut Report,
) -> Result<(), Failure> {
    start(program, root, nodes, report).await?;
    act(nodes, report).await?;
    cosigned_and_copied(nodes, report).await?;
    prove(&nodes[0], program, root, report).await?;
    wipe(&mut nodes[2], report).await?;
    roll_back(&mut nodes[3], root, report).await?;
    damage(&mut nodes[1], report).await?;
    fork(nodes, root, report).await
}

/// Five nodes, one mesh.
async fn start(
    program: &Program,
    root: &Path,
    nodes: &mut Vec<Node>,
    report: &mut Report,
) -> Result<(), Failure> {
    report.begin("five nodes start and join");
    let secret = program.run(root, &["keygen", "--network"]).await;
    let secret = secret.map_err(NodeError::from)?.stdout.trim().to_owned();
    for name in NAMES {
        let setup = Setup {
            name: name.to_owned(),
            secret: Some(secret.clone()),
            ..Setup::default()
        };
        nodes.push(Node::create(program, root, &setup).await?);
    }
    for node in nodes.iter_mut() {
        node.start().await?;
    }
    let ticket = nodes[0].cli(&["ticket"]).await?;
    for node in &nodes[1..] {
        node.cli(&["join", ticket.trim()]).await?;
    }
    for node in nodes.iter() {
        until("all to know all", EVENTUALLY, || sees_all(node)).await?;
    }
    report.held("each sees the four others");
    Ok(())
}

async fn sees_all(node: &Node) -> Result<(), NotYet> {
    for other in NAMES.iter().filter(|name| **name != node.name) {
        let peer = node.peer(other).await.map_err(NotYet::saw)?;
        if peer["liveness"] != "alive" {
            return Err(NotYet::saw(format!("{}: {peer}", node.name)));
        }
    }
    Ok(())
}

/// Each node has an agent, and each agent work.
async fn act(nodes: &[Node], report: &mut Report) -> Result<(), Failure> {
    report.begin("agents act on each node");
    for node in nodes {
        node.spawn(&echo_agent(&agent_of(node))).await?;
        talk(node, MESSAGES).await?;
    }
    let mut sizes = Vec::new();
    for node in nodes {
        sizes.push(format!("{} {}", node.name, size_of(node).await?));
    }
    report.held(format!("entries: {}", sizes.join(", ")));
    Ok(())
}

fn agent_of(node: &Node) -> String {
    format!("worker-{}", node.name)
}

fn echo_agent(name: &str) -> String {
    format!("name = \"{name}\"\nversion = \"0.1.0\"\nmodule = \"builtin:echo\"\n")
}

async fn talk(node: &Node, times: usize) -> Result<(), Failure> {
    let path = format!("/api/agents/{}/message", agent_of(node));
    for number in 0..times {
        let body = json!({ "message": format!("number {number}") });
        node.api()?.ok("POST", &path, Some(&body)).await?;
    }
    Ok(())
}

async fn size_of(node: &Node) -> Result<u64, Failure> {
    let recent = node.api()?.get("/api/audit/recent?n=1").await?;
    Ok(recent["total"].as_u64().unwrap_or_default())
}

/// Every head is cosigned by three of four and copied to three.
async fn cosigned_and_copied(nodes: &[Node], report: &mut Report) -> Result<(), Failure> {
    report.begin("peers cosign every log and keep copies of it");
    for node in nodes {
        let what = format!("the log of {} to be cosigned and copied", node.name);
        until(&what, EVENTUALLY, || is_replicated(node)).await?;
    }
    let peers = nodes[0].cli(&["audit", "verify", "--peers"]).await?;
    report.remark(peers.lines().next().unwrap_or_default());
    report.held(
        "each newest head is cosigned by 3 of 4 witnesses, and its entries are on 3 other nodes",
    );
    Ok(())
}

/// Whether all that is in the log of a node now is cosigned by enough, and copied.
async fn is_replicated(node: &Node) -> Result<u64, NotYet> {
    let api = node.api().map_err(NotYet::saw)?;
    let recent = api.get("/api/audit/recent?n=1").await;
    let total = recent.map_err(NotYet::saw)?["total"].as_u64();
    let witnesses = api.get("/api/audit/witnesses").await.map_err(NotYet::saw)?;
    let mirrors = api.get("/api/audit/mirrors").await.map_err(NotYet::saw)?;
    let cosigned = witnesses["complete"]["size"].as_u64();
    let enough = witnesses["needed"] == 3 && mirrors["wanted"] == 3;
    if enough && cosigned >= total && mirrors["replicated"].as_u64() >= total {
        Ok(total.unwrap_or_default())
    } else {
        Err(NotYet::saw(format!(
            "{total:?} entries, {witnesses}, {mirrors}"
        )))
    }
}

/// An entry is proved to someone who has no node and no network.
async fn prove(
    node: &Node,
    program: &Program,
    root: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    report.begin("an entry is proved offline");
    let folder = root.join("auditor");
    let failed = |source| Failure::File {
        path: folder.clone(),
        source,
    };
    std::fs::create_dir(&folder).map_err(failed)?;
    let (proof, policy) = (folder.join("x.tlog-proof"), folder.join("policy"));
    // The file of the cosigned head follows within a second.
    until("node-a to verify", EVENTUALLY, || verifies(node)).await?;
    std::fs::write(&proof, node.cli(&["audit", "prove", "100"]).await?).map_err(failed)?;
    std::fs::write(&policy, node.cli(&["audit", "policy"]).await?).map_err(failed)?;
    // The home does not exist: nothing but the two files is there.
    let nowhere = folder.join("no-home");
    let check = async || -> Result<Finished, NodeError> {
        let (proof, policy) = (proof.display().to_string(), policy.display().to_string());
        let args = ["audit", "check", &proof, "--policy", &policy];
        Ok(program.run(&nowhere, &args).await?)
    };
    let checked = check().await?;
    expect_code("audit check", &checked, 0)?;
    flip_byte(&proof, "index 100\n").map_err(failed)?;
    let forged = check().await?;
    if forged.code() != 1 && forged.code() != 2 {
        return Err(Failure::claim(format!(
            "a proof with a flipped byte: {}",
            forged.said()
        )));
    }
    let said = checked.stdout.lines().next().unwrap_or_default().to_owned();
    report.held(format!("without node, home and network: {said}"));
    Ok(())
}

/// Whether all of the log is cosigned by enough, as its files say.
async fn verifies(node: &Node) -> Result<(), NotYet> {
    let verify = node.try_cli(&["audit", "verify", "--json"]).await;
    let verify = verify.map_err(NotYet::saw)?;
    let told: Value = serde_json::from_str(&verify.stdout).unwrap_or(Value::Null);
    if verify.code() == 0 && told["witnessed"]["size"] == told["entries"] {
        Ok(())
    } else {
        Err(NotYet::saw(verify.said()))
    }
}

/// A home without its log: it comes back, in the same epoch.
async fn wipe(node: &mut Node, report: &mut Report) -> Result<(), Failure> {
    report.begin("node-c is killed and its audit log wiped");
    let what = "the log of node-c to be copied";
    let (size, _) = until(what, EVENTUALLY, || is_replicated(node)).await?;
    node.kill().await?;
    let before = lines(&node.audit_log(), size)?;
    for name in LOG_FILES {
        remove(&node.home().join(name))?;
    }
    node.start().await?;
    let (now, took) = until("node-c to have its log again", EVENTUALLY, || {
        has_back(node, &before, size)
    })
    .await?;
    let (signed, _) = until("node-c to be cosigned again", EVENTUALLY, || {
        is_replicated(node)
    })
    .await?;
    if signed < now {
        return Err(Failure::claim(format!(
            "{signed} of {now} entries are cosigned"
        )));
    }
    let verify = node.try_cli(&["audit", "verify"]).await?;
    expect_code("audit verify", &verify, 0)?;
    report.held(format!(
        "{size} entries came back byte for byte {} ms after it answered, and it goes on in the same epoch",
        took.as_millis()
    ));
    Ok(())
}

/// Whether a log begins with what it had, and tells that it was lost.
async fn has_back(node: &Node, before: &[u8], size: u64) -> Result<u64, NotYet> {
    let now = std::fs::read(node.audit_log()).map_err(NotYet::saw)?;
    if !now.starts_with(before) {
        return Err(NotYet::saw(format!(
            "{} bytes of {}",
            now.len(),
            before.len()
        )));
    }
    let told = String::from_utf8_lossy(&now[before.len()..]).into_owned();
    if !told.contains("restored entries") {
        return Err(NotYet::saw(told));
    }
    let recent = node
        .api()
        .map_err(NotYet::saw)?
        .get("/api/audit/recent?n=1")
        .await;
    let total = recent.map_err(NotYet::saw)?["total"]
        .as_u64()
        .unwrap_or_default();
    if total > size {
        Ok(total)
    } else {
        Err(NotYet::saw(total))
    }
}

/// A backup is put back: what was logged since comes from the others.
async fn roll_back(node: &mut Node, root: &Path, report: &mut Report) -> Result<(), Failure> {
    report.begin("node-d is put back to an earlier backup of its log");
    let backup = root.join("backup-of-d");
    expect_stop(node).await?;
    copy_log(node.home(), &backup)?;
    node.start().await?;
    talk(node, 40).await?;
    expect_stop(node).await?;
    let after =
        std::fs::read(node.audit_log()).map_err(|source| file(&node.audit_log(), source))?;
    let size = after.iter().filter(|byte| **byte == b'\n').count() as u64;
    for name in LOG_FILES {
        remove(&node.home().join(name))?;
    }
    copy_log(&backup, node.home())?;
    let had = std::fs::read(node.audit_log()).map_err(|source| file(&node.audit_log(), source))?;
    let had = had.iter().filter(|byte| **byte == b'\n').count();
    node.start().await?;
    let (_, took) = until("node-d to have its log again", EVENTUALLY, || {
        has_back(node, &after, size)
    })
    .await?;
    until("node-d to be cosigned again", EVENTUALLY, || {
        is_replicated(node)
    })
    .await?;
    report.held(format!(
        "the backup had {had} of {size} entries; the rest came back {} ms after it answered, before it signed anything",
        took.as_millis()
    ));
    Ok(())
}

/// One byte of a log is changed while its node is off.
async fn damage(node: &mut Node, report: &mut Report) -> Result<(), Failure> {
    report.begin("a byte of node-b's log is changed while it is off");
    expect_stop(node).await?;
    let path = node.audit_log();
    let good = std::fs::read(&path).map_err(|source| file(&path, source))?;
    flip_byte(&path, "\"seq\":77,").map_err(|source| file(&path, source))?;
    let verify = node.try_cli(&["audit", "verify"]).await?;
    expect_code("audit verify", &verify, 1)?;
    match node.start().await {
        Err(NodeError::Command { said, .. }) if said.contains("audit repair") => {}
        Err(why) => return Err(why.into()),
        Ok(_) => return Err(Failure::claim("it starts with a damaged log")),
    }
    let repaired = node.try_cli(&["audit", "repair", "--json"]).await?;
    expect_code("audit repair", &repaired, 0)?;
    let now = std::fs::read(&path).map_err(|source| file(&path, source))?;
    if now != good {
        return Err(Failure::claim("the repaired log is not what it was"));
    }
    node.start().await?;
    let told: Value = serde_json::from_str(&repaired.stdout).unwrap_or(Value::Null);
    let patch = &told["replaced"][0];
    let entries = patch["fetched"].as_u64().unwrap_or_default();
    if patch["entries"] != 1 || entries == 0 || entries > 256 {
        return Err(Failure::claim(format!(
            "one bundle should be replaced: {told}"
        )));
    }
    let verify = node.try_cli(&["audit", "verify"]).await?;
    expect_code("audit verify", &verify, 0)?;
    report.held(format!(
        "it does not start; audit repair fetched {entries} entries from {} and nothing else; it verifies and starts",
        told["from"]
    ));
    Ok(())
}

/// Two copies of one home go on apart. When the second history meets the first, everyone knows.
async fn fork(nodes: &mut Vec<Node>, root: &Path, report: &mut Report) -> Result<(), Failure> {
    report.begin("two copies of node-e's home go on apart");
    let e = nodes
        .pop()
        .ok_or_else(|| Failure::claim("node-e is gone"))?;
    let (mut first, copy) = (e, root.join("copy-of-e"));
    expect_stop(&mut first).await?;
    copy_folder(first.home(), &copy)?;
    // Apart: the copy knows no peer, and so asks none before it signs.
    for name in ["network.toml", "mesh"] {
        remove(&copy.join(name))?;
    }
    let mut second = first.moved_to(&copy);
    sign_apart(&mut second, report).await?;
    first.start().await?;
    talk(&first, 30).await?;
    until("node-e to be cosigned", EVENTUALLY, || {
        is_replicated(&first)
    })
    .await?;
    expect_stop(&mut first).await?;
    // A copy that joins asks first, and shows nothing that it should not have signed. This one is met.
    let ticket = second.cli(&["ticket"]).await?;
    let joined = tokio::time::Instant::now();
    let told = nodes[0].try_cli(&["join", ticket.trim()]).await?;
    let mut slowest = Duration::ZERO;
    for node in nodes.iter() {
        let what = format!("{} to know the evidence", node.name);
        until(&what, EVENTUALLY, || knows_evidence(node)).await?;
        slowest = slowest.max(joined.elapsed());
    }
    nodes.push(first);
    nodes.push(second);
    if slowest > EVIDENCE_WITHIN {
        return Err(Failure::claim(format!(
            "the evidence was everywhere after {slowest:?}"
        )));
    }
    report.remark(told.said().lines().next().unwrap_or_default());
    let file = evidence_of(&nodes[0])?;
    let checked = nodes[0]
        .try_cli(&["audit", "evidence", "verify", &file])
        .await?;
    expect_code("audit evidence verify", &checked, 0)?;
    let verify = nodes[0].try_cli(&["audit", "verify"]).await?;
    expect_code("audit verify with evidence known", &verify, 4)?;
    refused_call(&nodes[0]).await?;
    report.held(format!(
        "evidence on every other node after {} ms; anyone can check it; no call reaches node-e any more",
        slowest.as_millis()
    ));
    Ok(())
}

/// Has a copy of a home sign. It knows that it is one, and waits for its peers; so somebody has to remove
/// what gives it away.
async fn sign_apart(copy: &mut Node, report: &mut Report) -> Result<(), Failure> {
    copy.start().await?;
    let doubt = copy.home().join("audit.doubt");
    let found = std::fs::read_to_string(&doubt).unwrap_or_default();
    if found != "moved\n" {
        return Err(Failure::claim(format!(
            "the copy does not know that it is one: {found:?}"
        )));
    }
    report
        .remark("the copy knows that it is one, and signs nothing before its peers have answered");
    expect_stop(copy).await?;
    for name in ["audit.doubt", "audit.d/place", "audit.d/policy"] {
        remove(&copy.home().join(name))?;
    }
    copy.start().await?;
    talk(copy, 20).await?;
    until("the copy to sign", EVENTUALLY, || has_signed_all(copy)).await?;
    Ok(())
}

async fn has_signed_all(node: &Node) -> Result<(), NotYet> {
    let api = node.api().map_err(NotYet::saw)?;
    let recent = api
        .get("/api/audit/recent?n=1")
        .await
        .map_err(NotYet::saw)?;
    let signed = recent["checkpoint"]
        .as_str()
        .unwrap_or_default()
        .lines()
        .nth(1);
    if signed.is_some() && signed == Some(&recent["total"].to_string()) {
        Ok(())
    } else {
        Err(NotYet::saw(recent))
    }
}

async fn knows_evidence(node: &Node) -> Result<(), NotYet> {
    let peer = node.peer("node-e").await.map_err(NotYet::saw)?;
    let api = node.api().map_err(NotYet::saw)?;
    let known = api.get("/api/audit/evidence").await.map_err(NotYet::saw)?;
    let listed = known["evidence"]
        .as_array()
        .is_some_and(|all| !all.is_empty());
    if peer["audit"]["state"] == "convicted" && listed {
        Ok(())
    } else {
        Err(NotYet::saw(format!("{peer} {known}")))
    }
}

/// Finds the file that convicts.
fn evidence_of(node: &Node) -> Result<String, Failure> {
    let folder = node.home().join("audit.d/evidence");
    let entries = std::fs::read_dir(&folder).map_err(|source| file(&folder, source))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut found = paths.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let first = found.next();
    let first =
        first.ok_or_else(|| Failure::claim(format!("no evidence in {}", folder.display())))?;
    Ok(first.display().to_string())
}

/// Nobody talks to a node that is convicted.
async fn refused_call(node: &Node) -> Result<(), Failure> {
    let body = json!({ "message": "Are you honest?" });
    let path = "/api/agents/worker-node-e@node-e/message";
    let reply = node.api()?.send("POST", path, Some(&body)).await?;
    if reply.status == 403 || reply.status == 404 {
        return Ok(());
    }
    let what = format!("a call to node-e: {} {}", reply.status, reply.body);
    Err(Failure::claim(what))
}

async fn expect_stop(node: &mut Node) -> Result<(), Failure> {
    match node.stop().await? {
        0 => Ok(()),
        code => Err(Failure::claim(format!("{} ended with {code}", node.name))),
    }
}

fn expect_code(what: &str, finished: &Finished, code: i32) -> Result<(), Failure> {
    if finished.code() == code {
        return Ok(());
    }
    let (found, said) = (finished.code(), finished.said());
    Err(Failure::claim(format!(
        "{what} should end with {code}, not {found}: {said}"
    )))
}

/// Changes the first byte behind a text in a file to another digit or letter.
fn flip_byte(path: &Path, behind: &str) -> std::io::Result<()> {
    let mut bytes = std::fs::read(path)?;
    let found = bytes
        .windows(behind.len())
        .position(|window| window == behind.as_bytes());
    let start = found.ok_or(std::io::ErrorKind::NotFound)? + behind.len();
    let at = (start..bytes.len()).find(|at| bytes[*at].is_ascii_alphanumeric());
    let at = at.ok_or(std::io::ErrorKind::NotFound)?;
    bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
    std::fs::write(path, bytes)
}

/// Reads the first lines of a file.
fn lines(path: &Path, count: u64) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path).map_err(|source| file(path, source))?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let all: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    if all.len() < count {
        let what = format!("{} has {} of {count} lines", path.display(), all.len());
        return Err(Failure::claim(what));
    }
    Ok(all[..count].concat())
}

fn copy_log(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to).map_err(|source| file(to, source))?;
    for name in LOG_FILES {
        let (from, to) = (from.join(name), to.join(name));
        if from.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            std::fs::copy(&from, &to).map_err(|source| file(&from, source))?;
        }
    }
    Ok(())
}

/// Copies a folder with all in it.
fn copy_folder(from: &Path, to: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| file(from, source);
    std::fs::create_dir(to).map_err(failed)?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(to, private).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            copy_folder(&from, &to)?;
        } else if kind.is_file() {
            std::fs::copy(&from, &to).map_err(failed)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Failure> {
    let removed = if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Ok(()) => Ok(()),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(file(path, source)),
    }
}

fn file(path: &Path, source: std::io::Error) -> Failure {
    Failure::File {
        path: PathBuf::from(path),
        source,
    }
}
