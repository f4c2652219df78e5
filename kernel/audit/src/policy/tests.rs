//! Every line that is none, quorums against counting by hand, and who is chosen as a witness.

use super::*;
use crate::policy::PolicyProblem as Problem;
use crate::testing::{TestLog, cosigner, keys};
use openfang_id::SigningKey;
use proptest::prelude::*;

/// A witness line for each of the seeds, named `w<seed>`.
fn witnesses(seeds: &[u8]) -> String {
    let line = |seed: &u8| format!("witness w{seed} {}\n", cosigner(*seed).public());
    seeds.iter().map(line).collect()
}

fn parse(text: &str) -> Policy {
    Policy::parse(text.as_bytes()).expect("a policy")
}

fn names(found: &Evaluation) -> Vec<String> {
    let names = found.cosignatures.iter();
    names.map(|one| one.witness.to_string()).collect()
}

/// The two levels of groups of the example in C2SP tlog-policy.
#[test]
fn the_example_of_the_specification_asks_for_both_organisations() {
    let log = TestLog::new(1, 3);
    let vkey = |seed| cosigner(seed).public().clone();
    let text = format!(
        "log {}\n\n\
         witness X1 {}\nwitness X2 {}\nwitness X3 {}\ngroup X-witnesses 2 X1 X2 X3\n\n\
         witness Y1 {}\nwitness Y2 {}\nwitness Y3 {}\ngroup Y-witnesses any Y1 Y2 Y3\n\n\
         group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n",
        log.verifier(),
        vkey(11),
        vkey(12),
        vkey(13),
        vkey(21),
        vkey(22),
        vkey(23),
    );
    let policy = parse(&text);
    assert_eq!(policy.as_bytes(), text.as_bytes());
    assert_eq!(policy.logs().len(), 1);
    assert_eq!(policy.witnesses().len(), 6);
    let check = |seeds: &[u8], reached: bool| {
        let by: Vec<_> = seeds.iter().map(|seed| cosigner(*seed)).collect();
        let by: Vec<_> = by.iter().map(|one| (one, 100)).collect();
        let found = policy
            .evaluate(&log.cosigned(3, &by))
            .expect("a head of the log");
        assert_eq!(found.reached, reached, "{seeds:?}");
        assert_eq!(found.head, log.head(3));
    };
    check(&[], false);
    check(&[11, 12], false);
    check(&[11, 21], false);
    check(&[21, 22, 23], false);
    check(&[11, 12, 21], true);
    check(&[11, 13, 23], true);
    check(&[11, 12, 13, 21, 22, 23], true);
    // A stranger does not count.
    check(&[11, 12, 31], false);
}

#[test]
fn an_evaluation_says_who_and_when() {
    let log = TestLog::new(1, 5);
    let text = format!(
        "log {} https://log.example/\n{}group all-of-them 2 w2 w3 w4\nquorum all-of-them\n",
        log.verifier(),
        witnesses(&[2, 3, 4])
    );
    let policy = parse(&text);
    let url = policy.logs()[0].url.as_ref().map(Word::as_bytes);
    assert_eq!(url, Some(b"https://log.example/".as_slice()));
    let (w3, w4) = (cosigner(3), cosigner(4));
    let note = log.cosigned(5, &[(&w4, 100), (&w3, 200)]);
    let found = policy.evaluate(&note).expect("a head of the log");
    assert_eq!(names(&found), ["w3", "w4"]);
    assert_eq!((found.oldest(), found.newest()), (Some(100), Some(200)));
    assert!(found.reached);
    // Fresh enough, too old, and from the future.
    assert!(policy.is_reached_within(&found, &(100..=200)));
    assert!(!policy.is_reached_within(&found, &(101..=300)));
    assert!(!policy.is_reached_within(&found, &(0..=199)));
    let bare = policy.evaluate(&log.note(5)).expect("a head of the log");
    assert_eq!((bare.oldest(), bare.newest()), (None, None));
    assert!(!bare.reached);
}

#[test]
fn only_heads_of_the_logs_of_the_policy_are_judged() {
    let (log, other) = (TestLog::new(1, 2), TestLog::new(2, 2));
    let policy = parse(&format!("log {}\nquorum none\n", log.verifier()));
    assert_eq!(
        policy.evaluate(&log.note(2)).map(|found| found.reached),
        Ok(true)
    );
    assert_eq!(
        policy.evaluate(&other.note(2)),
        Err(EvaluateError::UnknownLog)
    );
    // The key of the log under a head of another log, and the other way round.
    let text = log.note(2).text().to_owned();
    let by_other = Note::sign(&text, other.origin.as_str(), &other.key).expect("a valid text");
    assert_eq!(policy.evaluate(&by_other), Err(EvaluateError::UnknownLog));
    let text = other.note(2).text().to_owned();
    let of_other = Note::sign(&text, log.origin.as_str(), &log.key).expect("a valid text");
    assert_eq!(policy.evaluate(&of_other), Err(EvaluateError::UnknownLog));
    let no_head = Note::sign("text\n", log.origin.as_str(), &log.key).expect("a valid text");
    assert_eq!(
        policy.evaluate(&no_head),
        Err(EvaluateError::Head(TreeHeadError::Lines))
    );
    let nobody = parse("quorum none\n");
    assert_eq!(
        nobody.evaluate(&log.note(2)),
        Err(EvaluateError::UnknownLog)
    );
    let found = nobody.evaluate_of(&log.verifier(), &log.note(2));
    assert_eq!(found.map(|found| found.reached), Ok(true));
    assert_eq!(
        nobody.evaluate_of(&log.verifier(), &other.note(2)),
        Err(EvaluateError::UnknownLog)
    );
}

#[test]
fn a_false_line_of_a_known_key_spoils_the_note() {
    let log = TestLog::new(1, 2);
    let text = format!("log {}\n{}quorum w2\n", log.verifier(), witnesses(&[2, 3]));
    let policy = parse(&text);
    let (w2, w3, stranger) = (cosigner(2), cosigner(3), cosigner(9));
    let falsified = |who: &crate::cosign::Cosigner| {
        let mut note = log.cosigned(2, &[(&w2, 5)]);
        let mut line = who.cosign(&log.head(1), 5).expect("a time");
        line.bytes[20] ^= 1;
        note.add(line).expect("room for a line");
        policy.evaluate(&note).map(|found| found.reached)
    };
    assert_eq!(falsified(&w3), Err(EvaluateError::Signature));
    assert_eq!(falsified(&w2), Err(EvaluateError::Signature));
    assert_eq!(falsified(&stranger), Ok(true));
    let mut note = log.note(2);
    let mut line = note.signatures()[0].clone();
    line.bytes[0] ^= 1;
    note.add(line).expect("room for a line");
    assert_eq!(policy.evaluate(&note), Err(EvaluateError::Signature));
}

#[test]
fn a_key_counts_once_whatever_it_is_called() {
    let log = TestLog::new(1, 2);
    let key = keys(2).witness;
    let vkey = |name| CosignerKey::new(name, key.verifying_key()).expect("a valid name");
    let text = format!(
        "log {}\nwitness a {}\nwitness b {}\ngroup two 2 a b\nquorum two\n",
        log.verifier(),
        vkey("a"),
        vkey("b")
    );
    let refused = Policy::parse(text.as_bytes()).expect_err("one key, two names");
    let problem = Problem::SameKey;
    assert_eq!(refused, PolicyError { line: 3, problem });
    let text = format!("log {0}\nlog {0}\nquorum none\n", log.verifier());
    let refused = Policy::parse(text.as_bytes()).expect_err("one log twice");
    assert_eq!(refused, PolicyError { line: 2, problem });
}

#[test]
fn a_line_that_is_none_is_named() {
    let check = |text: &str, line: usize, problem: Problem| {
        let found = Policy::parse(text.as_bytes());
        assert_eq!(found, Err(PolicyError { line, problem }), "{text:?}");
    };
    check("", 1, Problem::NoQuorum);
    check("# nothing\n", 2, Problem::NoQuorum);
    check("quorum none", 1, Problem::Unterminated);
    check("quorum none\n#", 2, Problem::Unterminated);
    check("quorum none\nquorum none\n", 2, Problem::SecondQuorum);
    check("quorum\n", 1, Problem::Words);
    check("quorum none none\n", 1, Problem::Words);
    check("Quorum none\n", 1, Problem::Words);
    check("witness a\n", 1, Problem::Words);
    check("group a 1\nquorum a\n", 1, Problem::Threshold);
    check("group a\n", 1, Problem::Words);
    check("log\n", 1, Problem::Words);
}

#[test]
fn a_name_or_a_key_that_cannot_count_is_named() {
    let (w2, w3) = (witnesses(&[2]), witnesses(&[3]));
    let log_key = TestLog::new(1, 0).verifier();
    let check = |text: &str, line: usize, problem: Problem| {
        let found = Policy::parse(text.as_bytes());
        assert_eq!(found, Err(PolicyError { line, problem }), "{text:?}");
    };
    check("quorum none\r\n", 1, Problem::Octets);
    check("quorum\0none\n", 1, Problem::Octets);
    check("# \u{7f}\nquorum none\n", 1, Problem::Octets);
    check("quorum w2\n", 1, Problem::NameUnknown);
    check(&format!("quorum w2\n{w2}"), 1, Problem::NameUnknown);
    check(
        &format!("{w2}group g any w3\n{w3}quorum g\n"),
        2,
        Problem::NameUnknown,
    );
    check(
        &format!("{w2}group g any g\nquorum g\n"),
        2,
        Problem::NameUnknown,
    );
    check(
        &format!("{w2}group g any none\nquorum g\n"),
        2,
        Problem::NameUnknown,
    );
    check(
        &format!("{w2}group g any w2 w2\nquorum g\n"),
        2,
        Problem::SecondMembership,
    );
    check(
        &format!("{w2}group g any w2\ngroup h any w2\nquorum g\n"),
        3,
        Problem::SecondMembership,
    );
    check(
        &format!("{w2}group w2 any w2\nquorum w2\n"),
        2,
        Problem::NameTaken,
    );
    let none = w2.replace("witness w2", "witness none");
    check(&format!("{none}quorum none\n"), 1, Problem::NameTaken);
    let again = w3.replace("witness w3", "witness w2");
    check(&format!("{w2}{again}quorum w2\n"), 2, Problem::NameTaken);
    for needed in ["0", "2", "01", "+1", "-1", "most", "18446744073709551616"] {
        let text = format!("{w2}group g {needed} w2\nquorum g\n");
        check(&text, 2, Problem::Threshold);
    }
    // A key of the wrong kind.
    let kind = Problem::LogKey(crate::note::VerifierError::Key);
    check(
        &format!("log {}\nquorum none\n", cosigner(2).public()),
        1,
        kind,
    );
    let kind = Problem::WitnessKey(crate::note::VerifierError::Key);
    check(&format!("witness w {log_key}\nquorum none\n"), 1, kind);
    let form = Problem::LogKey(crate::note::VerifierError::Form);
    check("log \u{fffd}\nquorum none\n", 1, form);
    let long = format!("#{}\nquorum none\n", "x".repeat(POLICY_BYTES_MAX));
    check(&long, 1, Problem::TooLong);
}

#[test]
fn white_space_comments_and_other_encodings_are_allowed() {
    let log = TestLog::new(1, 1);
    let vkey = cosigner(2).public().clone();
    let mut text = format!("\n \t\n # \u{fffd}\n\tlog\t{}  \n", log.verifier()).into_bytes();
    text.extend_from_slice(b"# caf\xe9\n witness caf\xe9 ");
    text.extend_from_slice(format!("{vkey}\thttps://w.example/\n").as_bytes());
    text.extend_from_slice(b"group # all caf\xe9 \nquorum #\n# the end\n");
    let policy = Policy::parse(&text).expect("a policy");
    assert_eq!(policy.as_bytes(), text);
    assert_eq!(policy.witnesses()[0].name.as_bytes(), b"caf\xe9");
    let note = log.cosigned(1, &[(&cosigner(2), 7)]);
    assert_eq!(policy.evaluate(&note).map(|found| found.reached), Ok(true));
    assert_eq!(
        policy.evaluate(&log.note(1)).map(|found| found.reached),
        Ok(false)
    );
}

#[test]
fn as_many_lines_as_the_specification_wants_are_read() {
    let mut text = String::new();
    let mut groups = String::new();
    for seed in 0..32 {
        let key = SigningKey::from_bytes(&[100 + seed; 32]);
        let log = Verifier::new(&format!("log{seed}"), key.verifying_key()).expect("a name");
        text.push_str(&format!("log {log}\n"));
        text.push_str(&witnesses(&[seed]));
        groups.push_str(&format!("group g{seed} all w{seed}\n"));
    }
    let policy = parse(&format!("{text}{groups}quorum g31\n"));
    assert_eq!((policy.logs().len(), policy.witnesses().len()), (32, 32));
    assert_eq!(policy.groups.len(), 32);
}

#[test]
fn the_policy_of_a_log_is_written_from_its_witnesses() {
    let log = TestLog::new(1, 4);
    let nodes = [2, 3, 4, 5].map(|seed| (keys(seed).node_id(), keys(seed).witness.verifying_key()));
    let key = log.key.verifying_key();
    let policy = Policy::of_log(&log.origin, key, &nodes, quorum_for(4)).expect("a policy");
    let ids = nodes.map(|(node, _)| node.to_string());
    let mut expected = format!("log {}\n", log.verifier());
    for (seed, id) in [2, 3, 4, 5].iter().zip(&ids) {
        expected.push_str(&format!("witness {id} {}\n", cosigner(*seed).public()));
    }
    expected.push_str(&format!(
        "group witnesses 3 {}\nquorum witnesses\n",
        ids.join(" ")
    ));
    assert_eq!(String::from_utf8_lossy(policy.as_bytes()), expected);
    let by = [2, 3, 5].map(cosigner);
    let by: Vec<_> = by.iter().map(|one| (one, 9)).collect();
    let reached = |by: &[_]| {
        policy
            .evaluate(&log.cosigned(4, by))
            .map(|found| found.reached)
    };
    assert_eq!(reached(&by), Ok(true));
    assert_eq!(reached(&by[..2]), Ok(false));
    let alone = Policy::of_log(&log.origin, key, &[], 0).expect("a policy");
    let text = format!("log {}\nquorum none\n", log.verifier());
    assert_eq!(alone.as_bytes(), text.as_bytes());
}

#[test]
fn a_policy_that_would_count_falsely_is_not_written() {
    let log = TestLog::new(1, 4);
    let node = |seed| (keys(seed).node_id(), keys(seed).witness.verifying_key());
    let key = log.key.verifying_key();
    let check = |nodes: &[_], k: usize, expected: PolicyBuildError| {
        let built = Policy::of_log(&log.origin, key, nodes, k);
        assert_eq!(built, Err(expected));
    };
    check(&[node(2), node(3)], 0, PolicyBuildError::Quorum);
    check(&[node(2), node(3)], 3, PolicyBuildError::Quorum);
    check(&[], 1, PolicyBuildError::Quorum);
    check(&[node(1), node(2)], 2, PolicyBuildError::OwnNode);
    check(&[node(2), node(2)], 2, PolicyBuildError::SameKey);
    check(
        &[node(2), (node(3).0, node(2).1)],
        2,
        PolicyBuildError::SameKey,
    );
    check(
        &[node(2), (node(2).0, node(3).1)],
        2,
        PolicyBuildError::SameKey,
    );
    check(&[(node(2).0, key)], 1, PolicyBuildError::SameKey);
    let many = |number: u16| {
        let mut seed = [9; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let keys = openfang_id::NodeSeed::from_bytes(seed).keys();
        (keys.node_id(), keys.witness.verifying_key())
    };
    let many: Vec<_> = (0..400).map(many).collect();
    check(&many, many.len(), PolicyBuildError::TooLong);
}

#[test]
fn the_quorum_is_more_than_two_thirds() {
    let found: Vec<_> = (0..=10).map(quorum_for).collect();
    assert_eq!(found, [0, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7]);
    for n in 1..200 {
        assert_eq!(quorum_for(n), 1 + 2 * n / 3, "{n}");
    }
}

#[test]
fn what_a_quorum_is_worth_is_what_counting_says() {
    assert_eq!(Strength::of(0, 0), Strength::Unwitnessed);
    assert_eq!(Strength::of(1, 1), Strength::Detects);
    assert_eq!(Strength::of(2, 2), Strength::Detects);
    assert_eq!(Strength::of(3, 3), Strength::Detects);
    assert_eq!(Strength::of(2, 4), Strength::Detects);
    assert_eq!(Strength::of(3, 4), Strength::Prevents { liars: 1 });
    assert_eq!(Strength::of(5, 7), Strength::Prevents { liars: 2 });
    assert_eq!(Strength::of(5, 4), Strength::Detects);
    for n in 4..30 {
        for k in quorum_for(n)..=n {
            let Strength::Prevents { liars } = Strength::of(k, n) else {
                panic!("{k} of {n} prevents");
            };
            // Liars sign both views, everyone else one of them.
            let both = |liars: usize| {
                let honest = n - liars;
                (0..=honest).any(|first| liars + first >= k && liars + honest - first >= k)
            };
            assert!(!both(liars), "{k} of {n}");
            assert!(liars == n || both(liars + 1), "{k} of {n}");
        }
    }
}

#[test]
fn the_same_nodes_are_chosen_everywhere_and_never_the_own_one() {
    let nodes: Vec<_> = (1..=20).map(|seed| keys(seed).node_id()).collect();
    let origin = Origin::of(&nodes[0], 1);
    let chosen = assign(Role::Witness, &origin, &nodes, 4);
    assert_eq!(chosen.len(), 4);
    let mut reversed: Vec<_> = nodes.iter().rev().copied().collect();
    reversed.extend_from_slice(&nodes);
    assert_eq!(assign(Role::Witness, &origin, &reversed, 4), chosen);
    assert_eq!(assign(Role::Witness, &origin, &nodes, 100).len(), 19);
    assert_eq!(assign(Role::Witness, &origin, &nodes[..1], 4), []);
    assert_eq!(assign(Role::Witness, &origin, &[], 4), []);
    assert_ne!(assign(Role::Mirror, &origin, &nodes, 4), chosen);
    for other in &nodes {
        let origin = Origin::of(other, 7);
        let chosen = assign(Role::Witness, &origin, &nodes, 19);
        assert!(!chosen.contains(other));
    }
    // Others must choose the same in years to come.
    let short: Vec<_> = chosen.iter().map(NodeId::fmt_short).collect();
    assert_eq!(short, SNAPSHOT);
    // When one leaves, its place is filled and nobody else moves.
    let stay: Vec<_> = nodes
        .iter()
        .filter(|node| **node != chosen[1])
        .copied()
        .collect();
    let then = assign(Role::Witness, &origin, &stay, 4);
    assert_eq!(then[..3], [chosen[0], chosen[2], chosen[3]]);
    assert!(!chosen.contains(&then[3]));
}

const SNAPSHOT: [&str; 4] = ["oADzKiSL", "wT9V6S7n", "a2BnmJ4L", "39gDENYj"];

#[test]
fn the_duties_are_spread_over_the_nodes() {
    let nodes: Vec<_> = (1..=16).map(|seed| keys(seed).node_id()).collect();
    let mut duties = [0_usize; 16];
    for node in &nodes {
        for epoch in 0..16 {
            for chosen in assign(Role::Witness, &Origin::of(node, epoch), &nodes, 4) {
                let at = nodes
                    .iter()
                    .position(|node| *node == chosen)
                    .expect("a candidate");
                duties[at] += 1;
            }
        }
    }
    // 64 each, if chance had no say.
    assert!(
        duties.iter().all(|duties| (32..=96).contains(duties)),
        "{duties:?}"
    );
}

/// The rule once more, from the leaves of its definition: group by group, by name.
fn reference(groups: &[(usize, Vec<String>)], quorum: &str, cosigned: &[bool]) -> bool {
    let number = |name: &str| name[1..].parse::<usize>().expect("a number");
    match quorum.as_bytes()[0] {
        b'w' => cosigned[number(quorum)],
        _ => {
            let (needed, members) = &groups[number(quorum)];
            let yes = members
                .iter()
                .filter(|name| reference(groups, name, cosigned));
            yes.count() >= *needed
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_quorum_is_reached_exactly_as_its_groups_say(
        cosigned in prop::collection::vec(any::<bool>(), 6),
        shape in prop::collection::vec((1_usize..4, 0_usize..4), 1..5),
    ) {
        let log = TestLog::new(200, 1);
        let mut text = format!("log {}\n{}", log.verifier(), witnesses(&[0, 1, 2, 3, 4, 5]));
        let mut free: Vec<String> = (0..6).map(|number| format!("w{number}")).collect();
        let mut groups = Vec::new();
        for (count, needed) in shape {
            let members: Vec<_> = free.drain(..count.min(free.len())).collect();
            let needed = needed.clamp(1, members.len());
            let name = format!("g{}", groups.len());
            text.push_str(&format!("group {name} {needed} {}\n", members.join(" ")));
            groups.push((needed, members));
            free.push(name);
        }
        let quorum = format!("g{}", groups.len() - 1);
        text.push_str(&format!("quorum {quorum}\n"));
        let by: Vec<_> = (0..6_u8).map(cosigner).collect();
        let by: Vec<_> = by.iter().zip(&cosigned).filter(|(_, yes)| **yes).map(|(one, _)| (one, 5)).collect();
        let found = parse(&text).evaluate(&log.cosigned(1, &by)).expect("a head of the log");
        prop_assert_eq!(found.reached, reference(&groups, &quorum, &cosigned));
        prop_assert_eq!(found.cosignatures.len(), by.len());
    }

    #[test]
    fn parsing_never_panics_and_keeps_the_bytes(
        lines in prop::collection::vec("(log|witness|group|quorum|#)?( [a-z0-9#]{1,4}| none| any){0,4}", 0..6),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut text = lines.join("\n").into_bytes();
        for source in [text.clone(), { text.extend_from_slice(&bytes); text }] {
            if let Ok(policy) = Policy::parse(&source) {
                prop_assert_eq!(policy.as_bytes(), source);
            }
        }
    }

    #[test]
    fn a_changed_byte_of_a_policy_never_panics(at in 0_usize..10_000, byte: u8) {
        let log = TestLog::new(1, 0);
        let text = format!("log {}\n{}group g 2 w2 w3\nquorum g\n", log.verifier(), witnesses(&[2, 3]));
        let mut bytes = text.into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(policy) = Policy::parse(&bytes) {
            prop_assert_eq!(policy.as_bytes(), bytes);
        }
    }
}
