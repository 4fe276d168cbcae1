//! A disk that can lose its power: an ext4 image on a loop mount. `shutdown` without a log flush drops what was never
//! synced, as a power cut does; kill -9 alone never tests an fsync. Needs root, and fails loudly without.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::until;

/// The disk. Dropping it unmounts it.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    /// Waits for the order, so that a cut takes effect within a tenth of a millisecond.
    switch: Option<Child>,
}

impl Disk {
    /// A new disk of `mebibytes`, mounted in `folder`, which lies on another one.
    pub fn new(folder: &Path, mebibytes: u64) -> Disk {
        let (image, mount) = (folder.join("disk.img"), folder.join("disk"));
        std::fs::create_dir_all(&mount).expect("the folder of a test is writable");
        let file = std::fs::File::create(&image).expect("the folder of a test is writable");
        file.set_len(mebibytes << 20).expect("a sparse file");
        must(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let mut disk = Disk { image, mount, switch: None };
        disk.attach();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn attach(&mut self) {
        must(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount));
        let mut switch = Command::new("xfs_io");
        switch.arg("-x").arg(&self.mount).stdin(Stdio::piped()).stdout(Stdio::null());
        self.switch = Some(switch.spawn().expect("xfs_io is installed (package xfsprogs)"));
    }

    /// Cuts the power. From now on nothing reaches the disk, and what was not synced is gone.
    pub fn cut(&mut self) {
        let mut switch = self.switch.take().expect("the disk is attached");
        let mut orders = switch.stdin.take().expect("piped");
        orders.write_all(b"shutdown\n").expect("xfs_io listens");
        drop(orders);
        let status = switch.wait().expect("xfs_io ends at the end of its orders");
        assert!(status.success(), "xfs_io shutdown: {status}");
    }

    /// Power again, after a cut; nobody may have files open any more.
    pub fn restore(&mut self) {
        let unmounted = until(Duration::from_secs(5), || run(Command::new("umount").arg(&self.mount)));
        unmounted.unwrap_or_else(|why| panic!("{why}"));
        self.attach();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(mut switch) = self.switch.take() {
            drop(switch.stdin.take());
            let _ = switch.wait();
        }
        // Lazily: a failed test may leave files open for a moment. An error leaves a mount behind and hides nothing.
        let _ = run(Command::new("umount").arg("-l").arg(&self.mount));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|why| format!("{command:?}: {why}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{command:?}: {}", said.trim()))
}

fn must(command: &mut Command) {
    run(command)
        .unwrap_or_else(|why| panic!("power cuts need root, loop mounts, e2fsprogs and xfsprogs: {why}"));
}
