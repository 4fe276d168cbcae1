//! Runs the bash examples of a document as a reader would, one after another, with only the base URL and the key
//! replaced. curl is told to fail on an error status; what each call answered is collected.

use std::path::{Path, PathBuf};
use std::process::Command;

/// In front of each block. `curl` keeps its arguments; the answer goes on to where the reader would see it.
const PRELUDE: &str = r#"set -euo pipefail
curl() {
    local number; number=$(find "$ANSWERS" -name '*.body' | wc -l)
    local file; file=$(printf '%s/%04d.body' "$ANSWERS" "$number")
    local code=0
    command curl --fail-with-body --silent --show-error --max-time 20 --output "$file" "$@" || code=$?
    cat "$file"
    return "$code"
}
"#;

/// A document and where its examples run.
pub struct Document {
    /// The text.
    pub text: String,
    /// The current directory of the examples.
    pub folder: PathBuf,
    /// What is replaced, in order.
    pub replacements: Vec<(String, String)>,
}

impl Document {
    /// The blocks fenced as ```bash.
    pub fn blocks(&self) -> Vec<String> {
        bash_blocks(&self.text)
    }

    /// Runs all blocks; the answers of all curl calls in order. Panics at the first that fails.
    pub fn run(&self) -> Vec<String> {
        self.blocks().iter().flat_map(|block| self.run_block(block)).collect()
    }

    /// Runs one block.
    pub fn run_block(&self, block: &str) -> Vec<String> {
        let answers = tempfile::tempdir().expect("a temporary folder");
        let mut script = block.to_owned();
        for (from, to) in &self.replacements {
            script = script.replace(from, to);
        }
        let output = Command::new("bash")
            .arg("-c")
            .arg(format!("{PRELUDE}{script}"))
            .current_dir(&self.folder)
            .env("ANSWERS", answers.path())
            .output()
            .expect("bash is there");
        let (said, complained) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "this example fails:\n{block}\n{said}\n{complained}");
        read_answers(answers.path())
    }
}

fn read_answers(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there").flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).expect("answers are UTF-8")).collect()
}

fn bash_blocks(text: &str) -> Vec<String> {
    let (mut blocks, mut block) = (Vec::new(), None::<String>);
    for line in text.lines() {
        match (&mut block, line.trim_end()) {
            (None, "```bash") => block = Some(String::new()),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(lines), _) => {
                lines.push_str(line);
                lines.push('\n');
            }
            (None, _) => (),
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        let replacements = vec![("RIGHT".to_owned(), "true".to_owned())];
        Document { text: text.to_owned(), folder: std::env::temp_dir(), replacements }
    }

    #[test]
    fn bash_blocks_are_taken_and_others_left() {
        let text = "```json\n{}\n```\na\n```bash\nb\nc\n```\n```sh\nd\n```\n```bash\ne\n```\nf\n```\n";
        assert_eq!(document(text).blocks(), ["b\nc\n", "e\n"]);
    }

    #[test]
    #[should_panic(expected = "this example fails")]
    fn an_example_that_fails_in_the_middle_fails() {
        document("").run_block("RIGHT\nfalse\nRIGHT\n");
    }
}
