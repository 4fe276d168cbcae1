//! Segments: the files of the chain. Preallocated and written with zeros, so that a sync need not touch their metadata.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 16 | preamble: magic, version, CRC of these twelve bytes (`preamble`) |
//! | 16 | 16 | journal id |
//! | 32 | 32 | the position before the first frame: epoch, lsn, stamp, time |
//! | 64 | 4 | CRC of the frame before the first: the seed of the chain |
//! | 68 | 8 | first lsn of the segment before, 0 for none |
//! | 76 | 4 | CRC of the bytes 16 to 76 |
//! | 80 | 12 | closing mark, written when the next segment is durable: its first lsn, CRC of these eight bytes; else zeros |
//! | 128 | | frames, then zeros |
//!
//! Each segment names the one before it, and a closed one the one behind it: a missing file is seen without reading
//! frames. A segment gets its header while it still has a temporary name; the directory is synced behind each rename.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dataflows::types::Micros;

use super::frame::{Chain, field, salt};
use super::{OpenError, Position, faults};

/// Where the first frame begins.
pub(super) const HEADER_BYTES: u64 = 128;
/// What file names begin with; the first lsn follows, twenty digits.
pub(super) const PREFIX: &str = "segment-";

const MAGIC: &[u8; 8] = b"TTAGSJNL";
const VERSION: u32 = 1;
const CLOSING_AT: u64 = 80;

/// The identity of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub journal_id: u128,
    /// The chain before the first frame.
    pub chain: Chain,
    /// First lsn of the segment before; 0 for none.
    pub previous: u64,
}

/// A segment on the disk.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    pub name: String,
    pub header: Header,
    pub bytes: u64,
    /// Set when it was closed: a segment with this first lsn follows.
    pub next: Option<u64>,
}

/// The segment being written.
pub(super) struct Segment {
    pub file: File,
    pub path: PathBuf,
    /// Where the next frame goes.
    pub offset: u64,
    /// Bytes of the file: it never grows.
    pub capacity: u64,
}

/// The first sixteen bytes of every file: `magic` says what it is; the version comes with a CRC of its own, so that a
/// newer format is told from damage whatever else it changes.
pub(super) fn preamble(magic: &[u8; 8], version: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(magic);
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The version of a file that begins like this; none if it is damaged.
pub(super) fn version(magic: &[u8; 8], bytes: &[u8]) -> Option<u32> {
    let version = u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
    (bytes.get(..16)? == preamble(magic, version)).then_some(version)
}

/// Positions are four integers wherever they are written.
pub(super) fn put_position(into: &mut [u8], position: &Position) {
    let Position { epoch, lsn, stamp, time } = *position;
    into[..8].copy_from_slice(&epoch.to_le_bytes());
    into[8..16].copy_from_slice(&lsn.to_le_bytes());
    into[16..24].copy_from_slice(&stamp.0.to_le_bytes());
    into[24..32].copy_from_slice(&time.0.to_le_bytes());
}

/// Reads such a position.
pub(super) fn position(from: &[u8]) -> Position {
    Position {
        epoch: u64::from_le_bytes(field(from, 0)),
        lsn: u64::from_le_bytes(field(from, 8)),
        stamp: Micros(i64::from_le_bytes(field(from, 16))),
        time: Micros(i64::from_le_bytes(field(from, 24))),
    }
}

impl Header {
    /// The lsn of the first frame, which also names the file.
    pub fn first_lsn(&self) -> u64 {
        self.chain.position.lsn + 1
    }

    /// The name of the file.
    pub fn file_name(&self) -> String {
        format!("{PREFIX}{:020}", self.first_lsn())
    }

    /// The bytes before the first frame.
    pub fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..16].copy_from_slice(&preamble(MAGIC, VERSION));
        bytes[16..32].copy_from_slice(&self.journal_id.to_le_bytes());
        put_position(&mut bytes[32..64], &self.chain.position);
        bytes[64..68].copy_from_slice(&self.chain.crc.to_le_bytes());
        bytes[68..76].copy_from_slice(&self.previous.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[16..76]);
        bytes[76..80].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Option<Header> {
        if crc32c::crc32c(&bytes[16..76]).to_le_bytes() != bytes[76..80] {
            return None;
        }
        let journal_id = u128::from_le_bytes(field(bytes, 16));
        let crc = u32::from_le_bytes(field(bytes, 64));
        let chain = Chain { salt: salt(journal_id), position: position(&bytes[32..64]), crc };
        Some(Header { journal_id, chain, previous: u64::from_le_bytes(field(bytes, 68)) })
    }
}

/// Reads the header of `path`, whose name says that its first frame is `first_lsn`.
pub(super) fn inspect(path: &Path, name: String, first_lsn: u64) -> Result<Found, OpenError> {
    let damaged = |why| OpenError::Damaged { segment: name.clone(), offset: 0, lsn: first_lsn, why };
    let open_error = |source| super::error::open_error("read", path)(source);
    let file = File::open(path).map_err(open_error)?;
    let bytes = file.metadata().map_err(open_error)?.len();
    let mut head = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut head, 0).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => damaged("the file is shorter than its header"),
        _ => open_error(source),
    })?;
    match version(MAGIC, &head) {
        Some(VERSION) => {}
        Some(version) => return Err(OpenError::UnknownVersion { file: name, version }),
        None => return Err(damaged("the header is damaged")),
    }
    let header = Header::decode(&head).ok_or_else(|| damaged("the header is damaged"))?;
    if header.first_lsn() != first_lsn {
        return Err(damaged("the header belongs to another file name"));
    }
    // Twelve zeros are no mark: the CRC of eight zeros is not zero.
    let mark: [u8; 8] = field(&head, CLOSING_AT as usize);
    let closed = crc32c::crc32c(&mark).to_le_bytes() == field::<4>(&head, CLOSING_AT as usize + 8);
    Ok(Found { path: path.to_owned(), name, header, bytes, next: closed.then(|| u64::from_le_bytes(mark)) })
}

/// Makes a file of `bytes` zeros, durable apart from its name.
pub(super) fn zeroed(path: &Path, bytes: u64) -> io::Result<File> {
    const CHUNK: &[u8] = &[0; 1 << 18];
    let made = (|| {
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let mut left = bytes;
        while left > 0 {
            let chunk = &CHUNK[..CHUNK.len().min(left as usize)];
            file.write_all(chunk)?;
            left -= chunk.len() as u64;
            // Little by little, so that the writer's own syncs do not queue behind one great flush.
            if left.is_multiple_of(1 << 20) {
                file.sync_data()?;
            }
        }
        file.sync_all()?;
        Ok(file)
    })();
    made.inspect_err(|_| drop(fs::remove_file(path)))
}

/// Makes renames and removals in the directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if faults::skip_directory_fsync() { Ok(()) } else { File::open(dir)?.sync_all() }
}

impl Segment {
    /// Turns a file of zeros at `spare` into the segment that `header` begins.
    pub fn begin(dir: &Path, spare: &Path, file: File, header: &Header) -> io::Result<Segment> {
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        let path = dir.join(header.file_name());
        fs::rename(spare, &path)?;
        sync_dir(dir)?;
        let capacity = file.metadata()?.len();
        Ok(Segment { file, path, offset: HEADER_BYTES, capacity })
    }

    /// Marks it as followed by the segment that begins with `next`, which is durable.
    pub fn close(&self, next: u64) -> io::Result<()> {
        let mark = next.to_le_bytes();
        let crc = crc32c::crc32c(&mark).to_le_bytes();
        self.file.write_all_at(&[&mark[..], &crc[..]].concat(), CLOSING_AT)?;
        self.file.sync_data()
    }

    /// Bytes that still fit behind `waiting` bytes.
    pub fn room(&self, waiting: usize) -> u64 {
        self.capacity.saturating_sub(self.offset + waiting as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let position = Position { epoch: 4, lsn: 9, stamp: Micros(-1), time: Micros(7) };
        Header { journal_id: 5 << 90, chain: Chain { salt: salt(5 << 90), position, crc: 77 }, previous: 3 }
    }

    #[test]
    fn a_header_reads_back_and_no_flipped_bit_of_it_goes_unseen() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let bytes = header().encode();
        fs::write(&path, bytes).expect("written");
        let found = inspect(&path, "file".into(), 10).expect("valid");
        assert_eq!((found.header, found.next), (header(), None));
        for bit in 0..CLOSING_AT as usize * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).expect("written");
            let refused = inspect(&path, "file".into(), 10).expect_err("damaged");
            assert!(matches!(refused, OpenError::Damaged { offset: 0, lsn: 10, .. }), "bit {bit}: {refused}");
        }
    }

    #[test]
    fn a_newer_version_and_another_name_are_refused_as_what_they_are() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let mut bytes = header().encode();
        fs::write(&path, bytes).expect("written");
        let swapped = inspect(&path, "file".into(), 11).expect_err("another name");
        assert!(swapped.to_string().contains("another file name"), "{swapped}");
        bytes[..16].copy_from_slice(&preamble(MAGIC, 2));
        fs::write(&path, bytes).expect("written");
        let newer = inspect(&path, "file".into(), 10).expect_err("newer");
        assert!(matches!(newer, OpenError::UnknownVersion { version: 2, .. }), "{newer}");
    }

    #[test]
    fn a_closed_segment_names_the_next() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let spare = dir.path().join("spare.tmp");
        let file = zeroed(&spare, 1 << 20).expect("made");
        let segment = Segment::begin(dir.path(), &spare, file, &header()).expect("begun");
        assert!(!spare.exists());
        segment.close(99).expect("closed");
        let found = inspect(&segment.path, header().file_name(), 10).expect("valid");
        assert_eq!((found.header, found.next, found.bytes), (header(), Some(99), 1 << 20));
    }
}
