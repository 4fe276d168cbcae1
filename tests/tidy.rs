//! House rules that a compiler does not know, as tests. In: every Rust file and migration of the repository. Out: one
//! finding a line, `path:line: what is wrong`. Each rule is a function of text, proven on a snippet that breaks it.
//!
//! The table `ROOMS` is the last table of the architecture: data walks through the rooms in one direction, and an
//! edge that is not in the table fails. What it does not do: judge names, comments or length of functions.

#[path = "tidy/lexer.rs"]
mod lexer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lexer::lex;

/// Room → what of ours it may use. A path is allowed if it lies under one of these. `telemetry` and `clock` are open
/// to all; the room itself always is.
const ROOMS: &[(&str, &[&str])] = &[
    ("clock", &["dataflows::types"]), // The unit of time only.
    ("config", &[]),
    ("telemetry", &[]),
    ("journal", &["dataflows::types"]),
    ("control", &["dataflows::types", "journal"]),
    ("engine", &["dataflows", "journal", "control"]),
    ("admission", &["dataflows::types", "control", "journal", "engine"]),
    ("store", &["dataflows::types", "control"]),
    ("outbound", &[]),
    ("stripe", &["dataflows::types", "control", "outbound"]),
    ("sinks", &["dataflows::types", "engine", "journal", "store", "stripe", "outbound"]),
    ("http", &["dataflows::types", "admission", "control", "store", "stripe", "outbound"]),
];
/// Files above the rooms: they build them, so `app` is closed to everybody else.
const ABOVE: &[&str] = &["main", "lib", "app", "cli"];
const OPEN_TO_ALL: &[&str] = &["clock", "telemetry"];
const APP_USERS: &[&str] = &["main", "cli", "lib", "app"];

/// What the pure crate may depend on.
const PURE_DEPENDENCIES: &[&str] = &["differential-dataflow", "foldhash", "serde", "thiserror", "timely"];
/// The only file that may hold `unsafe`.
const UNSAFE_FILE: &str = "dataflows/src/prefetch.rs";
/// Files that may read the machine's clocks, with the reason.
const CLOCK_FILES: &[(&str, &str)] = &[
    ("src/clock.rs", "it is the clock"),
    ("src/telemetry", "it measures how long the service takes, which decides nothing"),
];
const LINES_MAX: usize = 600;

/// `src/journal/frame.rs` → `journal`; none outside of `src`.
fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
}

/// Every path of ours in `code` with its line: `crate::a::b`, `dataflows::a`, `super::…` out of the room; groups
/// are unfolded.
fn own_paths(path: &str, code: &str) -> Vec<(usize, String)> {
    // How many `super::` lead from this file to the crate's root.
    let depth = path.matches('/').count() - usize::from(path.ends_with("/mod.rs"));
    let root = "super::".repeat(depth.max(1));
    let mut found = Vec::new();
    for (prefix, kept) in
        [("crate::", ""), ("tracktags::", ""), (root.as_str(), ""), ("dataflows::", "dataflows::")]
    {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || code[..at].ends_with("super::") {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let tails = unfold(&code[at + prefix.len()..]);
            found.extend(tails.into_iter().map(|tail| (line, format!("{kept}{tail}"))));
        }
    }
    found
}

/// The paths at the start of `text`: `a::b` is one, `{a::{b, c}, d}` are three.
fn unfold(text: &str) -> Vec<String> {
    let word = text.find(|symbol: char| !(symbol.is_alphanumeric() || symbol == '_')).unwrap_or(text.len());
    let (head, rest) = text.split_at(word);
    if let Some(tail) = rest.strip_prefix("::") {
        return unfold(tail).into_iter().map(|tail| format!("{head}::{tail}")).collect();
    }
    if !(head.is_empty() && rest.starts_with('{')) {
        return vec![head.to_owned()];
    }
    let (mut paths, mut depth, mut start) = (Vec::new(), 0, 1);
    for (at, symbol) in rest.char_indices() {
        match symbol {
            '{' => depth += 1,
            '}' | ',' if depth == 1 => {
                paths.extend(unfold(rest[start..at].trim()));
                start = at + 1;
                depth -= i32::from(symbol == '}');
            }
            '}' => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            break;
        }
    }
    paths.retain(|path| !path.is_empty());
    paths
}

fn foreign_imports(path: &str, text: &str) -> Vec<String> {
    let Some(room) = room_of(path) else { return Vec::new() };
    let allowed = match ROOMS.iter().find(|(name, _)| *name == room) {
        Some((_, allowed)) => allowed,
        None if ABOVE.contains(&room) => return app_imports(path, room, text),
        None => return vec![format!("{path}:1: `{room}` is no room: give it a line in ROOMS")],
    };
    let may = |used: &str| {
        let target = used.split("::").next().unwrap_or(used);
        let is_ours =
            target == "dataflows" || target == "app" || ROOMS.iter().any(|(name, _)| *name == target);
        let under = |allowed: &&str| *used == **allowed || used.starts_with(&format!("{allowed}::"));
        !is_ours || target == room || OPEN_TO_ALL.contains(&target) || allowed.iter().any(under)
    };
    let paths = own_paths(path, &lex(text).code);
    let bad = paths.into_iter().filter(|(_, used)| !may(used));
    bad.map(|(line, used)| format!("{path}:{line}: `{room}` may not use `{used}`")).collect()
}

fn app_imports(path: &str, room: &str, text: &str) -> Vec<String> {
    let paths = own_paths(path, &lex(text).code);
    let bad = paths.into_iter().filter(|(_, used)| used.starts_with("app") && !APP_USERS.contains(&room));
    bad.map(|(line, used)| format!("{path}:{line}: `{room}` may not use `{used}`")).collect()
}

fn shape_of_file(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if text.lines().count() >= LINES_MAX {
        findings.push(format!("{path}:{LINES_MAX}: {LINES_MAX} lines and more: split it by a noun"));
    }
    let header = text.lines().find(|line| !line.starts_with("#!"));
    if !header.is_some_and(|line| line.starts_with("//!") && line.len() > 8) {
        findings.push(format!("{path}:1: no //! header"));
    }
    findings
}

/// Whether a string literal reads as a statement of SQL.
fn is_sql(literal: &str) -> bool {
    let words: Vec<_> = literal.split_whitespace().map(str::to_ascii_uppercase).collect();
    let has = |word: &str| words.iter().any(|it| it == word);
    match words.first().map(String::as_str) {
        Some("INSERT") => has("INTO"),
        Some("SELECT" | "DELETE") => has("FROM"),
        Some("UPDATE") => has("SET"),
        Some("CREATE" | "ALTER" | "DROP") => has("TABLE") || has("INDEX") || has("VIEW"),
        Some("PRAGMA") => words.len() > 1,
        Some("BEGIN") => has("IMMEDIATE") || has("TRANSACTION"),
        _ => false,
    }
}

fn stray_sql(path: &str, text: &str) -> Vec<String> {
    let elsewhere = path.starts_with("src/") && room_of(path) != Some("store");
    let strings = if elsewhere { lex(text).strings } else { Vec::new() };
    let bad = strings.into_iter().filter(|(_, literal)| is_sql(literal));
    bad.map(|(line, literal)| format!("{path}:{line}: SQL outside of src/store: {literal:.40}")).collect()
}

/// Finds `needle` as whole words of code.
fn words(path: &str, code: &str, needle: &str, why: &str) -> Vec<String> {
    let in_word = |symbol: char| symbol.is_alphanumeric() || symbol == '_';
    let whole = |at: &usize| {
        !code[..*at].chars().next_back().is_some_and(in_word)
            && !code[at + needle.len()..].chars().next().is_some_and(in_word)
    };
    let places = code.match_indices(needle).map(|(at, _)| at).filter(whole);
    places.map(|at| format!("{path}:{}: {why}", code[..at].matches('\n').count() + 1)).collect()
}

fn forbidden_words(path: &str, text: &str) -> Vec<String> {
    let code = lex(text).code;
    let mut findings = words(path, &code, "#[ignore", "an ignored test");
    if path != UNSAFE_FILE {
        findings.extend(words(path, &code, "unsafe", "`unsafe` outside of dataflows/src/prefetch.rs"));
    }
    let product = path.starts_with("src/") || path.starts_with("dataflows/src/");
    if product && !CLOCK_FILES.iter().any(|(allowed, _)| path.starts_with(allowed)) {
        for clock in ["SystemTime::now", "Instant::now"] {
            findings.extend(words(path, &code, clock, "time comes from `Clock`"));
        }
    }
    let world = ["std::fs", "std::net", "std::env", "std::process"];
    for module in world.into_iter().filter(|_| path.starts_with("dataflows/src/")) {
        findings.extend(words(path, &code, module, "`dataflows` does no I/O"));
    }
    findings
}

/// Each dialect has the same numbers, once each. `files` are (dialect, file name).
fn uneven_migrations(files: &[(String, String)]) -> Vec<String> {
    let mut numbers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (dialect, name) in files {
        numbers.entry(dialect).or_default().push(name.split('_').next().unwrap_or(name));
    }
    let all: BTreeSet<_> = numbers.values().flatten().copied().collect();
    let mut findings = Vec::new();
    for (dialect, mut own) in numbers {
        own.sort_unstable();
        if own.windows(2).any(|pair| pair[0] == pair[1]) {
            findings.push(format!("migrations/{dialect}: a number is given twice"));
        }
        let missing = all.iter().filter(|number| !own.contains(number));
        findings.extend(missing.map(|number| format!("migrations/{dialect}: {number} is missing")));
    }
    findings
}

/// The names in the `[dependencies]` of a manifest that the pure crate may not have.
fn impure_dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or("");
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split(['.', '=', ' ']).next());
    let names = names.filter(|name| !name.is_empty() && !name.starts_with('#'));
    let bad = names.filter(|name| !PURE_DEPENDENCIES.contains(name));
    bad.map(|name| format!("dataflows/Cargo.toml: `dataflows` may not depend on {name}")).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// (path from the root, text) of every Rust file.
fn rust_files() -> Vec<(String, String)> {
    let mut folders: Vec<_> = ["src", "dataflows", "tests", "benches"].map(|name| root().join(name)).into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push((relative(&path), fs::read_to_string(&path).expect("a source file is UTF-8")));
            }
        }
    }
    assert!(files.iter().any(|(path, _)| path == "src/lib.rs"), "the walk found no sources");
    files
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn holds_everywhere(rule: impl Fn(&str, &str) -> Vec<String>) {
    let findings: Vec<_> = rust_files().iter().flat_map(|(path, text)| rule(path, text)).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    holds_everywhere(foreign_imports);
}

#[test]
fn files_are_small_and_say_what_they_are() {
    holds_everywhere(shape_of_file);
}

#[test]
fn sql_is_in_the_store_only() {
    holds_everywhere(stray_sql);
}

#[test]
fn no_file_ignores_tests_or_reads_the_clock_or_is_unsafe() {
    holds_everywhere(forbidden_words);
}

#[test]
fn dialects_have_the_same_migrations() {
    let mut files = Vec::new();
    for dialect in fs::read_dir(root().join("migrations")).expect("migrations/ is there").flatten() {
        for file in fs::read_dir(dialect.path()).into_iter().flatten().flatten() {
            let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
            files.push((dialect.file_name().to_string_lossy().into_owned(), name(file)));
        }
    }
    assert!(!files.is_empty(), "no migrations");
    assert_eq!(uneven_migrations(&files), [""; 0]);
}

#[test]
fn the_pure_crate_depends_on_pure_crates() {
    let manifest = fs::read_to_string(root().join("dataflows/Cargo.toml")).expect("the manifest is there");
    assert_eq!(impure_dependencies(&manifest), [""; 0]);
}

#[test]
fn a_foreign_import_is_found_in_every_spelling() {
    let used = |path: &str, text: &str| foreign_imports(path, text).len();
    for text in [
        "use crate::engine::Engine;",
        "use crate::{clock, engine::{Engine, Worker}, telemetry};",
        "fn f() -> crate::admission::Admission {}",
        "use dataflows::window::Window;",
        "use dataflows::{types::Amount, tally};",
        "use super::super::engine;",
        "use crate::app::App;",
    ] {
        assert!(used("src/journal/frame.rs", text) > 0, "{text}");
    }
    assert_eq!(used("src/journal/mod.rs", "use super::engine;"), 1);
    assert_eq!(used("src/attic/mod.rs", ""), 1, "an unknown room");
    for text in [
        "use dataflows::types::{Amount, Micros};",
        "use crate::{clock::Clock, journal::frame::Frame, telemetry};",
        "// use crate::engine;",
        "use super::frame::Frame; use super::*;",
        "const TEXT: &str = \"crate::engine\";",
    ] {
        assert_eq!(used("src/journal/frame.rs", text), 0, "{text}");
    }
    assert_eq!(used("src/app.rs", "use crate::{engine, http};"), 0);
    assert_eq!(used("dataflows/src/lib.rs", "use crate::engine;"), 0, "not a room of ours");
}

#[test]
fn a_long_or_headless_file_is_found() {
    let long = "//! Enough of a header.\n".to_owned() + &"\n".repeat(LINES_MAX - 1);
    assert_eq!(shape_of_file("a.rs", &long).len(), 1);
    assert_eq!(shape_of_file("a.rs", &long[..long.len() - 1]).len(), 0);
    assert_eq!(shape_of_file("a.rs", "use std::fs;\n//! late").len(), 1);
    assert_eq!(shape_of_file("a.rs", "//! x\n").len(), 1, "a header that says nothing");
}

#[test]
fn stray_sql_is_found() {
    let text = "fn f() { g(\"\n  SELECT 1 FROM metrics\"); }";
    assert_eq!(stray_sql("src/http/mod.rs", text).len(), 1);
    assert_eq!(stray_sql("src/store/sqlite.rs", text).len(), 0);
    assert_eq!(
        stray_sql("src/http/mod.rs", "// \"SELECT 1 FROM metrics\"\n\"select one from the list\"").len(),
        1
    );
    for prose in ["update the value", "Insert a coin", "delete nothing"] {
        assert!(!is_sql(prose), "{prose}");
    }
    for sql in
        ["insert into a values (1)", "UPDATE a SET b = 1", "PRAGMA journal_mode = WAL", "CREATE TABLE a (b)"]
    {
        assert!(is_sql(sql), "{sql}");
    }
}

#[test]
fn forbidden_words_are_found_in_code_only() {
    let found = |path: &str, text: &str| forbidden_words(path, text).len();
    assert_eq!(found("src/engine/mod.rs", "let now = Instant::now();"), 1);
    assert_eq!(found("src/engine/mod.rs", "// Instant::now()\n\"SystemTime::now\""), 0);
    assert_eq!(found("src/clock.rs", "SystemTime::now()"), 0);
    assert_eq!(found("tests/support/mod.rs", "Instant::now()"), 0);
    assert_eq!(found("src/lib.rs", "#![forbid(unsafe_code)]"), 0);
    assert_eq!(found("src/lib.rs", "unsafe { f() }"), 1);
    assert_eq!(found(UNSAFE_FILE, "unsafe { f() }"), 0);
    assert_eq!(
        found("tests/a.rs", "#[test]\n#[ignore]\nfn f() {}") + found("tests/a.rs", "#[ignore = \"b\"]"),
        2
    );
    assert_eq!(found("dataflows/src/driver.rs", "use std::fs::File;"), 1);
}

#[test]
fn uneven_migrations_and_impure_dependencies_are_found() {
    let files = |names: &[(&str, &str)]| -> Vec<(String, String)> {
        names.iter().map(|(dialect, name)| (dialect.to_string(), name.to_string())).collect()
    };
    let even = [("postgres", "0001_a.sql"), ("sqlite", "0001_b.sql")];
    assert_eq!(uneven_migrations(&files(&even)), [""; 0]);
    assert_eq!(uneven_migrations(&files(&[even[0], even[1], ("sqlite", "0002_c.sql")])).len(), 1);
    assert_eq!(uneven_migrations(&files(&[("sqlite", "0001_a.sql"), ("sqlite", "0001_b.sql")])).len(), 1);
    let manifest = "[package]\n\n[dependencies]\n# Why.\nserde.workspace = true\ntokio = \"1\"\n\n[dev-dependencies]\nx = \"1\"\n";
    assert_eq!(impure_dependencies(manifest).len(), 1);
}
