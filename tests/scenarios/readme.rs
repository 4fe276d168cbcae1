//! The README: its examples run one after another, its table of options is complete.

use std::process::Command;

use super::support::documents::Document;
use super::support::root;
use super::support::server::{Launch, binary};

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("README.md is there")
}

#[test]
fn every_bash_example_of_the_readme_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A reader's current directory: `./data` is the data directory, and the key is read from it.
    let server = Launch::bare(folder.path().join("data")).with(&["--dev"]).start();
    let replacements = vec![("http://localhost:8080".to_owned(), server.base())];
    let readme = Document { text: readme(), folder: folder.path().to_owned(), replacements };
    let blocks = readme.blocks();
    assert!(blocks.len() >= 4, "the README has examples");
    // One shell for all blocks: later ones use what earlier ones have set.
    let answers = readme.run_block(&blocks.concat());
    assert!(answers.len() >= 8, "{answers:#?}");
}

#[test]
fn the_readme_has_the_options_that_the_binary_has() {
    let help = Command::new(binary()).args(["serve", "--help"]).output().expect("the binary can be run");
    assert!(help.status.success());
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let flags = help.lines().filter_map(|line| line.trim_start().split([' ', '=', '[']).next());
    let mut offered: Vec<_> = flags.filter(|word| word.starts_with("--") && *word != "--help").collect();
    let readme = readme();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `--")?.split('`').next());
    let mut described: Vec<_> = rows.map(|name| format!("--{name}")).collect();
    offered.sort_unstable();
    described.sort_unstable();
    assert_eq!(described, offered, "{help}");
}
