//! Snapshots: what the caller remembers behind a position, in sections whose meaning is the caller's.
//!
//! ```text
//! file    := preamble:16  journal_id:16  position:32  crc:4 (of the 48 bytes before)  section*  end
//! section := kind:1  length:4  crc:4 (of kind, length and bytes, begun with the CRC before)  bytes:length
//! end     := a section of kind 255 without bytes
//! ```
//! Written under a temporary name, synced, renamed, the directory synced; a file without its end is not a snapshot. The
//! chained CRCs hold the sections together. Read in full before use, so that a bad one is refused as a whole.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, file_name, snapshot_path};
use super::error::{JournalError, OpenError, io_error, open_error};
use super::segment::{position, preamble, put_position, sync_dir, version};
use super::{Position, frame::field};

const MAGIC: &[u8; 8] = b"TTAGSSNP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 68;
const SECTION_HEAD_BYTES: usize = 9;
const END: u8 = 255;

/// Writes one snapshot under a temporary name; dropped unfinished it leaves nothing.
pub struct SnapshotWriter {
    disk: Arc<Disk>,
    position: Position,
    temporary: PathBuf,
    /// None once the file has its name.
    file: Option<BufWriter<File>>,
    crc: u32,
}

impl SnapshotWriter {
    pub(super) fn begin(disk: Arc<Disk>, position: Position) -> Result<SnapshotWriter, JournalError> {
        let temporary = snapshot_path(&disk.options.dir, position.epoch).with_extension("tmp");
        let file = File::create(&temporary).map_err(io_error("create", &temporary))?;
        let file = Some(BufWriter::with_capacity(1 << 18, file));
        let mut head = [0; HEADER_BYTES];
        head[..16].copy_from_slice(&preamble(MAGIC, VERSION));
        head[16..32].copy_from_slice(&disk.journal_id.to_le_bytes());
        put_position(&mut head[32..64], &position);
        let crc = crc32c::crc32c(&head[16..64]);
        head[64..].copy_from_slice(&crc.to_le_bytes());
        let mut writer = SnapshotWriter { disk, position, temporary, file, crc };
        writer.write(&head)?;
        Ok(writer)
    }

    /// Adds a section of less than 4 GiB; `kind` is the caller's. Panics at kind 255, which is the end's.
    pub fn section(&mut self, kind: u8, bytes: &[u8]) -> Result<(), JournalError> {
        assert!(kind != END, "the kind 255 is the end's");
        self.put(kind, bytes)
    }

    /// Makes it durable and drops all but the last two, and the segments that nobody needs any more.
    pub fn finish(mut self) -> Result<(), JournalError> {
        self.put(END, &[])?;
        self.with_room(|file| file.flush().and_then(|()| file.get_ref().sync_all()))?;
        let dir = &self.disk.options.dir;
        let path = snapshot_path(dir, self.position.epoch);
        fs::rename(&self.temporary, &path).map_err(io_error("rename", &self.temporary))?;
        self.file = None;
        sync_dir(dir).map_err(io_error("sync", dir))?;
        self.disk.add_snapshot(self.position);
        Ok(())
    }

    fn put(&mut self, kind: u8, bytes: &[u8]) -> Result<(), JournalError> {
        let length = u32::try_from(bytes.len()).expect("a section is below 4 GiB");
        let mut head = [0; SECTION_HEAD_BYTES];
        head[0] = kind;
        head[1..5].copy_from_slice(&length.to_le_bytes());
        self.crc = section_crc(self.crc, &head, bytes);
        head[5..].copy_from_slice(&self.crc.to_le_bytes());
        self.write(&head)?;
        self.write(bytes)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), JournalError> {
        // `write` and not `write_all`: after making room it goes on where it stopped.
        while !bytes.is_empty() {
            let written = self.with_room(|file| file.write(bytes))?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Runs `action`; on a full disk once more in the room of the reserve.
    fn with_room<R>(
        &mut self,
        mut action: impl FnMut(&mut BufWriter<File>) -> io::Result<R>,
    ) -> Result<R, JournalError> {
        let file = self.file.as_mut().expect("taken by `finish` alone, at its end");
        loop {
            match action(file).map_err(io_error("write", &self.temporary)) {
                Err(JournalError::DiskFull) if self.disk.keeper.release_reserve() => {}
                outcome => return outcome,
            }
        }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            drop(file.into_parts());
            // What cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn section_crc(before: u32, head: &[u8; SECTION_HEAD_BYTES], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(before, &head[..5]), bytes)
}

/// Reads one snapshot, a section in memory at a time.
pub struct SnapshotReader {
    path: PathBuf,
    file: BufReader<File>,
    /// Bytes of the file, and how many of them have been read.
    bytes: u64,
    offset: u64,
    /// Whether the end has been read.
    ended: bool,
    journal_id: u128,
    position: Position,
    crc: u32,
    section: Vec<u8>,
}

impl SnapshotReader {
    pub(super) fn open(path: &Path) -> Result<SnapshotReader, OpenError> {
        let file = File::open(path).map_err(open_error("read", path))?;
        let bytes = file.metadata().map_err(open_error("read", path))?.len();
        let mut file = BufReader::with_capacity(1 << 18, file);
        let mut head = [0; HEADER_BYTES];
        file.read_exact(&mut head).map_err(unless_short(path, 0))?;
        match version(MAGIC, &head) {
            Some(VERSION) => {}
            Some(version) => return Err(OpenError::UnknownVersion { file: file_name(path), version }),
            None => return Err(damaged(path, 0, "the header is damaged")),
        }
        let crc = crc32c::crc32c(&head[16..64]);
        if crc.to_le_bytes() != head[64..] {
            return Err(damaged(path, 0, "the header is damaged"));
        }
        Ok(SnapshotReader {
            path: path.to_owned(),
            file,
            bytes,
            offset: HEADER_BYTES as u64,
            ended: false,
            journal_id: u128::from_le_bytes(field(&head, 16)),
            position: position(&head[32..64]),
            crc,
            section: Vec::new(),
        })
    }

    /// Reads to the end, so that what is read again has been seen whole.
    pub(super) fn check(mut self) -> Result<(), OpenError> {
        while self.next_section()?.is_some() {}
        Ok(())
    }

    pub(super) fn journal_id(&self) -> u128 {
        self.journal_id
    }

    /// Behind which frame the state was.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next section in the order of writing; none at the end.
    pub fn next_section(&mut self) -> Result<Option<(u8, &[u8])>, OpenError> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0; SECTION_HEAD_BYTES];
        self.file.read_exact(&mut head).map_err(unless_short(&self.path, self.offset))?;
        let length = u64::from(u32::from_le_bytes(field(&head, 1)));
        let end = self.offset + SECTION_HEAD_BYTES as u64 + length;
        if end > self.bytes {
            return Err(damaged(&self.path, self.offset, "a section is longer than the file"));
        }
        self.section.clear();
        let read = (&mut self.file).take(length).read_to_end(&mut self.section);
        read.map_err(open_error("read", &self.path))?;
        self.crc = section_crc(self.crc, &head, &self.section);
        if self.crc.to_le_bytes() != head[5..] {
            return Err(damaged(&self.path, self.offset, "the checksum of a section does not match"));
        }
        self.offset = end;
        self.ended = head[0] == END;
        Ok((!self.ended).then_some((head[0], &self.section)))
    }
}

fn damaged(path: &Path, offset: u64, why: &'static str) -> OpenError {
    OpenError::Damaged { segment: file_name(path), offset, lsn: 0, why }
}

fn unless_short(path: &Path, offset: u64) -> impl FnOnce(io::Error) -> OpenError + '_ {
    move |source| match source.kind() {
        io::ErrorKind::UnexpectedEof => damaged(path, offset, "the file ends too early"),
        _ => open_error("read", path)(source),
    }
}
