//! Keys that the service keeps for its operator: files in the data directory, mode 0600.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;

use crate::config::Secret;
use crate::control::new_key;

const OWNER_ONLY: u32 = 0o600;

/// Makes the data directory, if it is not there.
pub(super) fn make_dir(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| {
        format!("cannot make the data directory {}: choose another with --data-dir", dir.display())
    })
}

/// The key in the file of that name: the given one, else the one from before, else a new one.
pub(super) fn kept(dir: &Path, name: &str, given: Option<&Secret>, prefix: &str) -> anyhow::Result<String> {
    let path = dir.join(name);
    let read = match fs::read_to_string(&path) {
        Ok(text) => Some(text.trim().to_owned()).filter(|key| !key.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let key = match (given, read) {
        (Some(Secret(given)), Some(read)) if *given == read => return Ok(read),
        (Some(Secret(given)), _) => given.clone(),
        (None, Some(read)) => return Ok(read),
        (None, None) => new_key(prefix)?,
    };
    write(dir, &path, &key).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

fn write(dir: &Path, path: &Path, key: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(OWNER_ONLY).open(&temporary)?;
    file.set_permissions(fs::Permissions::from_mode(OWNER_ONLY))?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}
