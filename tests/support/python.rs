//! Programs of PyPI, each in a virtual environment of its own under target/tools: made once, kept from run to run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter of an environment with this package in this version.
pub fn with(package: &str, version: &str) -> PathBuf {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(package);
    let python = venv.join("bin/python");
    let check = format!(
        "import importlib.metadata as it; assert it.version('{package}') == '{version}', it.version('{package}')"
    );
    let is_there =
        || Command::new(&python).args(["-c", &check]).output().is_ok_and(|done| done.status.success());
    if !is_there() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new(&python).args(install).arg(format!("{package}=={version}")));
        assert!(is_there(), "{package} was installed, but not in this version");
    }
    python
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
