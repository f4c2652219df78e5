//! What one source file may hold. Each check takes text and gives sentences, so that a test can
//! hand it a bad sample.

use crate::lexer::{blank, is_word, test_modules, without_tests};

/// Hard limit, whole file; the aim is 500 without tests.
pub(crate) const FILE_LINES_MAX: usize = 800;
/// Hard limit, from the line of `fn` to that of the closing brace; clippy warns at 70 statements.
pub(crate) const FUNCTION_LINES_MAX: usize = 100;

/// One file, with what is needed to say something about it.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root of the repository.
    pub(crate) path: String,
    /// The package it belongs to.
    pub(crate) package: String,
    text: String,
    /// Code only, tests included.
    code: String,
    /// Code only, without tests; empty when the whole file is a test.
    shipped: String,
}

/// Names that only some packages may use in shipped code.
struct Owned {
    token: &'static str,
    owners: &'static [&'static str],
    why: &'static str,
}

const OWNED: [Owned; 13] = [
    owned(
        "libp2p",
        &["openfang-mesh", "openfang-testnet"],
        "only the mesh driver knows libp2p",
    ),
    owned(
        "wasmtime",
        &["openfang-sandbox"],
        "only the sandbox knows wasmtime",
    ),
    owned(
        "axum",
        &["openfang-api", "openfang-testnet"],
        "only the API speaks HTTP as a server",
    ),
    owned(
        "rusqlite",
        &["openfang-kernel"],
        "only the kernel stores in SQLite",
    ),
    owned("println!", PRINTERS, "only the command line prints"),
    owned("print!", PRINTERS, "only the command line prints"),
    owned("eprintln!", PRINTERS, "only the command line prints"),
    owned("eprint!", PRINTERS, "only the command line prints"),
    owned(
        "env::var",
        READERS,
        "only the node and the command line read the environment",
    ),
    owned(
        "env::var_os",
        READERS,
        "only the node and the command line read the environment",
    ),
    owned(
        "tokio::spawn",
        &[],
        "a task has an owner: spawn it into a JoinSet",
    ),
    owned(
        "tokio::task::spawn",
        &[],
        "a task has an owner: spawn it into a JoinSet",
    ),
    owned("dbg!", &[], "it is for the desk, not for the house"),
];
const PRINTERS: &[&str] = &["openfang", "openfang-testnet"];
const READERS: &[&str] = &["openfang", "openfang-node", "openfang-testnet"];

/// What would make a pure crate depend on where and when it runs.
const IMPURE: [&str; 11] = [
    "tokio",
    "SystemTime",
    "std::time::Instant",
    "now_utc",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "HashMap",
    "HashSet",
    "std::env",
    "rand::rng",
];
/// And what only the append store of the log may do.
const STORE_ONLY: [&str; 3] = ["std::fs", "std::thread", "std::process"];
const PURE: [&str; 3] = ["openfang-id", "openfang-audit", "openfang-ofp"];
const STORE: &str = "openfang-audit";

/// Shapes of an error that a caller cannot act on.
const ERRORS_OF_NO_USE: [&str; 3] = ["String", "&'static str", "&str"];

const fn owned(token: &'static str, owners: &'static [&'static str], why: &'static str) -> Owned {
    Owned { token, owners, why }
}

impl File {
    pub(crate) fn new(path: &str, package: &str, text: String) -> File {
        let code = blank(&text);
        let shipped = if is_test_path(path) {
            String::new()
        } else {
            without_tests(&code)
        };
        File {
            path: path.to_owned(),
            package: package.to_owned(),
            text,
            code,
            shipped,
        }
    }

    /// The paths that modules of this file which exist only for tests can have.
    pub(crate) fn test_files(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let folder = match stem.rsplit_once('/') {
            Some((folder, "lib" | "main" | "mod")) => folder,
            _ => stem,
        };
        let names = test_modules(&self.code).into_iter();
        names
            .flat_map(|name| {
                [
                    format!("{folder}/{name}.rs"),
                    format!("{folder}/{name}/mod.rs"),
                ]
            })
            .collect()
    }

    /// Its code is none of what is shipped.
    pub(crate) fn set_test(&mut self) {
        self.shipped.clear();
    }

    /// Every problem of this file, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut found: Vec<String> = self.module_doc().into_iter().collect();
        found.extend(self.too_long());
        found.extend(self.functions());
        found.extend(self.unsafe_code());
        found.extend(self.owned_names());
        found.extend(self.impurities());
        found
    }

    fn module_doc(&self) -> Option<String> {
        let mut lines = self.text.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with("#!["));
        let documented = first.is_some_and(|line| line.starts_with("//!"));
        (!documented).then(|| format!("{}: no `//!` at its top says what it is", self.path))
    }

    fn too_long(&self) -> Option<String> {
        let lines = self.text.lines().count();
        (lines > FILE_LINES_MAX)
            .then(|| format!("{}: {lines} lines, more than {FILE_LINES_MAX}", self.path))
    }

    fn functions(&self) -> Vec<String> {
        let mut found = Vec::new();
        for function in functions(&self.shipped) {
            let place = format!("{}:{}: fn {}", self.path, function.line, function.name);
            if function.lines > FUNCTION_LINES_MAX {
                let lines = function.lines;
                found.push(format!(
                    "{place}: {lines} lines, more than {FUNCTION_LINES_MAX}"
                ));
            }
            for error in result_errors(&function.signature) {
                if ERRORS_OF_NO_USE.contains(&error.as_str()) || error.starts_with("Box<dyn") {
                    found.push(format!(
                        "{place}: gives Result<_, {error}>, on which no caller can act: name the error"
                    ));
                }
            }
        }
        found
    }

    fn unsafe_code(&self) -> Vec<String> {
        let lines = lines_with(&self.code, "unsafe").into_iter();
        lines
            .map(|line| format!("{}:{line}: unsafe code", self.path))
            .collect()
    }

    fn owned_names(&self) -> Vec<String> {
        let strangers = OWNED
            .iter()
            .filter(|rule| !rule.owners.contains(&self.package.as_str()));
        strangers
            .flat_map(|rule| {
                let lines = lines_with(&self.shipped, rule.token).into_iter();
                lines.map(|line| {
                    format!(
                        "{}:{line}: {} in {}: {}",
                        self.path, rule.token, self.package, rule.why
                    )
                })
            })
            .collect()
    }

    fn impurities(&self) -> Vec<String> {
        if !PURE.contains(&self.package.as_str()) {
            return Vec::new();
        }
        let store = if self.package == STORE {
            &[][..]
        } else {
            &STORE_ONLY[..]
        };
        IMPURE
            .iter()
            .chain(store)
            .flat_map(|token| {
                let lines = lines_with(&self.shipped, token).into_iter();
                lines.map(move |line| {
                    format!(
                        "{}:{line}: {token} in {}, which is pure",
                        self.path, self.package
                    )
                })
            })
            .collect()
    }
}

/// Files that hold nothing but tests, benchmarks, examples or fuzz targets.
fn is_test_path(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, "tests" | "benches" | "examples" | "fuzz" | "tests.rs"))
        || path.ends_with("_tests.rs")
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
    signature: String,
}

/// Every function with a body or a signature, in blanked text; functions within functions too.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn") {
        let (before, rest) = code.split_at(start);
        let after = rest.strip_prefix("fn").unwrap_or_default();
        let name: String = after
            .trim_start()
            .chars()
            .take_while(|&c| is_word(c))
            .collect();
        let stands_alone =
            !before.ends_with(|c| is_word(c) || c == '#') && after.starts_with(char::is_whitespace);
        // `fn(u8) -> u8` is a type: it has no name.
        if !stands_alone || name.is_empty() {
            continue;
        }
        let signature = until_body(rest);
        let (_, body) = rest.split_at(signature.len());
        let lines = signature.matches('\n').count() + block(body).matches('\n').count() + 1;
        found.push(Function {
            name,
            line: before.matches('\n').count() + 1,
            lines,
            signature: signature.to_owned(),
        });
    }
    found
}

/// From `fn` to the `{` of the body or the `;` instead of one.
fn until_body(text: &str) -> &str {
    let mut depth = 0_i32;
    let end = text.find(|c: char| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        depth == 0 && matches!(c, '{' | ';')
    });
    text.split_at(end.unwrap_or(text.len())).0
}

/// From a `{` to its `}`; nothing when the text does not begin with one.
fn block(text: &str) -> &str {
    if !text.starts_with('{') {
        return "";
    }
    let mut depth = 0_i32;
    let end = text.find(|c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    text.split_at(end.map_or(text.len(), |end| end + 1)).0
}

/// The second argument of every `Result<…>` of a signature, white space squeezed.
fn result_errors(signature: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, mark) in signature.match_indices("Result<") {
        let arguments = signature.split_at(at + mark.len()).1;
        if let Some(error) = generic_arguments(arguments).into_iter().nth(1) {
            found.push(error.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    found
}

/// `A, B<C, D>>…` as `["A", "B<C, D>"]`.
fn generic_arguments(text: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut depth = 0_i32;
    let mut before = ' ';
    for c in text.chars() {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' if before == '-' => {}
            '>' if depth == 0 => break,
            '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
        before = c;
        match arguments.last_mut() {
            Some(_) if c == ',' && depth == 0 => arguments.push(String::new()),
            Some(last) => last.push(c),
            None => {}
        }
    }
    arguments
        .iter()
        .map(|argument| argument.trim().to_owned())
        .collect()
}

/// The lines (from 1) on which a name stands by itself, not as a part of a longer one.
fn lines_with(code: &str, token: &str) -> Vec<usize> {
    let stands_alone = |&(at, _): &(usize, &str)| {
        let (before, rest) = code.split_at(at);
        let after = rest.strip_prefix(token).unwrap_or_default();
        !before.ends_with(is_word) && !after.starts_with(is_word)
    };
    code.match_indices(token)
        .filter(stands_alone)
        .map(|(at, _)| code.split_at(at).0.matches('\n').count() + 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(package: &str, text: &str, expected: &[&str]) {
        let source = format!("//! Sample.\n{text}");
        let found = File::new("x/src/a.rs", package, source).problems();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (sentence, part) in found.iter().zip(expected) {
            assert!(sentence.contains(part), "{sentence} does not say {part}");
        }
    }

    #[test]
    fn a_good_file_has_no_problem() {
        check(
            "openfang-ofp",
            "/// Adds.\npub fn add(a: u8) -> Result<u8, AddError> { a }\n",
            &[],
        );
    }

    #[test]
    fn a_missing_module_doc_is_found() {
        let none = File::new("a.rs", "openfang-api", "fn a() {}\n".to_owned());
        assert_eq!(
            none.problems(),
            ["a.rs: no `//!` at its top says what it is"]
        );
        let item = File::new(
            "a.rs",
            "openfang-api",
            "/// Of an item.\nfn a() {}\n".to_owned(),
        );
        assert_eq!(item.problems().len(), 1);
        let inner = "#![no_std]\n\n//! Of the module.\n".to_owned();
        assert!(
            File::new("a.rs", "openfang-api", inner)
                .problems()
                .is_empty()
        );
    }

    #[test]
    fn a_long_file_is_found() {
        let text = "//! Long.\n".repeat(FILE_LINES_MAX + 1);
        let file = File::new("a.rs", "openfang-api", text);
        assert_eq!(file.problems(), ["a.rs: 801 lines, more than 800"]);
    }

    #[test]
    fn a_long_function_is_found_at_its_line() {
        let body = "    work();\n".repeat(FUNCTION_LINES_MAX - 1);
        let long = format!("const A: u8 = 1;\nfn long(a: [u8; 3]) {{\n{body}}}\n");
        check(
            "openfang-api",
            &long,
            &["a.rs:3: fn long: 101 lines, more than 100"],
        );
        let fits = format!(
            "fn fits() {{\n{}}}\n",
            "    work();\n".repeat(FUNCTION_LINES_MAX - 2)
        );
        check("openfang-api", &fits, &[]);
    }

    #[test]
    fn braces_in_text_do_not_end_a_function_early() {
        let body = "    say(\"}\"); // }\n".repeat(FUNCTION_LINES_MAX);
        check(
            "openfang-api",
            &format!("fn long() {{\n{body}}}\n"),
            &["fn long: 102 lines"],
        );
        let body = "    say('{', r#\"{\"#); /* { */\n".repeat(10);
        let two = format!("fn a() {{\n{body}}}\n{}", "\n".repeat(100));
        check("openfang-api", &two, &[]);
    }

    #[test]
    fn function_types_and_names_with_fn_are_not_functions() {
        check(
            "openfang-api",
            "type F = fn(u8) -> Result<u8, String>;\nstruct fnord;\n",
            &[],
        );
        check(
            "openfang-api",
            "trait T {\n    fn f(&self) -> Result<(), String>;\n}\n",
            &["fn f"],
        );
    }

    #[test]
    fn long_tests_are_not_held_against_a_file() {
        let body = "    work();\n".repeat(FUNCTION_LINES_MAX + 5);
        check(
            "openfang-api",
            &format!("#[cfg(test)]\nmod tests {{\nfn t() {{\n{body}}}\n}}\n"),
            &[],
        );
    }

    #[test]
    fn errors_nobody_can_act_on_are_found() {
        check(
            "openfang-api",
            "fn a() -> Result<Vec<(u8, u8)>, String> {}\n",
            &["Result<_, String>"],
        );
        check(
            "openfang-api",
            "fn a() -> Result<\n    u8,\n    String,\n> {}\n",
            &["fn a"],
        );
        check(
            "openfang-api",
            "fn a(f: impl Fn(u8) -> Result<u8, &'static str>) {}\n",
            &["&'static str"],
        );
        check(
            "openfang-api",
            "fn a() -> Result<(), Box<dyn Error + Send>> {}\n",
            &["Box<dyn"],
        );
        check(
            "openfang-api",
            "fn a() -> Result<String, E<String>> {}\n",
            &[],
        );
        check("openfang-api", "fn a() -> io::Result<String> {}\n", &[]);
        check("openfang-api", "// fn a() -> Result<u8, String> {}\n", &[]);
    }

    #[test]
    fn unsafe_code_is_found_in_tests_too() {
        check(
            "openfang-api",
            "fn a() { unsafe { b() } }\n",
            &["a.rs:2: unsafe"],
        );
        check(
            "openfang-api",
            "#[cfg(test)]\nmod t { fn a() { unsafe { b() } } }\n",
            &["unsafe"],
        );
        check(
            "openfang-api",
            "#![deny(unsafe_code)]\n// unsafe\nfn unsafely() {}\n",
            &[],
        );
    }

    #[test]
    fn names_outside_their_owner_are_found() {
        check(
            "openfang-api",
            "use libp2p::PeerId;\n",
            &["libp2p in openfang-api"],
        );
        check("openfang-mesh", "use libp2p::PeerId;\n", &[]);
        check(
            "openfang-api",
            "/// Not `libp2p`.\nfn a() { my_libp2p(); }\n",
            &[],
        );
        check(
            "openfang-node",
            "fn a() { println!(); }\n",
            &["println! in openfang-node"],
        );
        check("openfang", "fn a() { println!(); }\n", &[]);
        check(
            "openfang-kernel",
            "fn a() { std::env::var(x); }\n",
            &["env::var in"],
        );
        check(
            "openfang-kernel",
            "fn a() { env!(x); set.spawn(x); }\n",
            &[],
        );
        check(
            "openfang-mesh",
            "fn a() { tokio::spawn(x); }\n",
            &["spawn it into a JoinSet"],
        );
        check(
            "openfang-mesh",
            "fn a() { tokio::task::spawn_blocking(x); }\n",
            &[],
        );
        check(
            "openfang-mesh",
            "#[cfg(test)]\nfn a() { println!(); }\n",
            &[],
        );
    }

    #[test]
    fn clocks_and_files_in_a_pure_crate_are_found() {
        check(
            "openfang-ofp",
            "use std::time::SystemTime;\n",
            &["SystemTime in openfang-ofp"],
        );
        check(
            "openfang-ofp",
            "use std::fs::File;\n",
            &["std::fs in openfang-ofp"],
        );
        check("openfang-audit", "use std::fs::File;\n", &[]);
        check(
            "openfang-audit",
            "use std::collections::HashMap;\n",
            &["HashMap"],
        );
        check("openfang-mesh", "use std::collections::HashMap;\n", &[]);
    }

    #[test]
    fn files_of_test_modules_are_known() {
        let text = "//! A.\n#[cfg(test)]\nmod fixtures;\n".to_owned();
        let root = File::new("x/src/lib.rs", "openfang-api", text.clone());
        assert_eq!(
            root.test_files(),
            ["x/src/fixtures.rs", "x/src/fixtures/mod.rs"]
        );
        let inner = File::new("x/src/gate.rs", "openfang-api", text);
        assert_eq!(
            inner.test_files(),
            ["x/src/gate/fixtures.rs", "x/src/gate/fixtures/mod.rs"]
        );
    }

    #[test]
    fn test_folders_are_known() {
        assert!(is_test_path("kernel/tests/a.rs") && is_test_path("mesh/src/roster/tests.rs"));
        assert!(!is_test_path("testnet/src/main.rs") && !is_test_path("mesh/src/latest.rs"));
    }
}
