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
fn every_option_is_in_the_readme() {
    let help = Command::new(binary()).args(["serve", "--help"]).output().expect("the binary can be run");
    assert!(help.status.success());
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let words = help.split([' ', ',', '\n', '=', '[']).filter(|word| word.starts_with("--"));
    let options: Vec<_> = words.filter(|word| !["--help", "--version"].contains(word)).collect();
    assert!(options.contains(&"--data-dir"), "{help}");
    let readme = readme();
    let missing: Vec<_> = options.iter().filter(|option| !readme.contains(&format!("`{option}"))).collect();
    assert!(missing.is_empty(), "not in the README: {missing:?}");
}
