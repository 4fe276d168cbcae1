//! Compressed bodies: members and frames, what is cut off or damaged, and bombs.

use super::super::inflate::{RATIO_FREE_BYTES, WINDOW_LOG_MAX};
use super::*;

const LINE: &[u8] = b"{\"metric_name\":\"a\"}\n";

/// Two lines in three members, of which one is empty.
fn all(encoding: Encoding) -> [Vec<u8>; 3] {
    [b"{\"metric_name\":\"a\"}\n{\"metric".as_slice(), b"", b"_name\":\"b\"}"].map(|part| match encoding {
        Encoding::Identity => part.to_vec(),
        Encoding::Gzip => gzip(part),
        Encoding::Zstd => zstd(part),
    })
}

#[test]
fn members_and_frames_are_one_text() {
    for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
        let body = all(encoding).concat();
        assert_eq!(read(Format::Ndjson, encoding, [&body[..]]).codes(), ["ok", "ok"], "{encoding:?}");
        assert_eq!(read(Format::Ndjson, encoding, body.chunks(1)).codes(), ["ok", "ok"], "{encoding:?}");
    }
    // A skippable frame (RFC 8878, section 3.1.2) between two of data.
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let body = [zstd(LINE), skippable.to_vec(), zstd(LINE)].concat();
    assert_eq!(read(Format::Ndjson, Encoding::Zstd, [&body[..]]).codes(), ["ok", "ok"]);
}

#[test]
fn a_stream_that_is_cut_anywhere_is_truncated_or_between_members() {
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let parts = all(encoding);
        let body = parts.concat();
        let ends = [parts[0].len(), parts[0].len() + parts[1].len()];
        for length in 0..body.len() {
            let seen = read(Format::Ndjson, encoding, [&body[..length]]);
            let expected = if ends.contains(&length) { Ok(()) } else { Err(("truncated_encoding", 1)) };
            // Before the first line is whole no item has been given.
            let end = seen.end.map_err(|(code, items)| (code, items.max(1)));
            assert_eq!(end, expected, "{encoding:?} cut at {length} of {}", body.len());
            assert!(seen.items.iter().take(1).all(Result::is_ok), "{encoding:?} cut at {length}");
        }
    }
}

#[test]
fn a_damaged_stream_never_ends_as_another_text() {
    for (encoding, body) in
        [(Encoding::Gzip, gzip(&LINE.repeat(50))), (Encoding::Zstd, zstd_with_checksum(&LINE.repeat(50)))]
    {
        let whole = read(Format::Ndjson, encoding, [&body[..]]);
        let mut spared = 0;
        for at in 0..body.len() {
            let mut damaged = body.clone();
            damaged[at] ^= 0x10;
            let seen = read(Format::Ndjson, encoding, [&damaged[..]]);
            // Time, operating system and the bits that fill the last byte say nothing of the content.
            assert!(seen.end.is_err() || seen == whole, "{encoding:?} byte {at}");
            spared += usize::from(seen.end.is_ok());
        }
        assert!(spared <= 8, "{encoding:?}: {spared} bytes of {} mean nothing", body.len());
    }
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let parts = all(encoding);
        let trailed = [parts[0].as_slice(), b"not compressed"].concat();
        assert_eq!(read(Format::Ndjson, encoding, [&trailed[..]]).end, Err(("malformed_encoding", 1)));
        assert_eq!(read(Format::Ndjson, encoding, [LINE]).codes(), ["malformed_encoding!"]);
    }
}

#[test]
fn a_chunk_that_becomes_much_is_read_a_piece_at_a_time() {
    for (encoding, body) in
        [(Encoding::Gzip, gzip(&LINE.repeat(100_000))), (Encoding::Zstd, zstd(&LINE.repeat(100_000)))]
    {
        let mut batch = Batch::new(Format::Ndjson, encoding, BOUNDS);
        let (mut items, mut rest, mut goes_on) = (0, &body[..], true);
        while goes_on {
            let before = items;
            goes_on = batch.push_some(&mut rest, &mut |_, _| items += 1).expect("it is well-formed");
            assert!(items - before <= 65_536 / LINE.len() + 1, "{encoding:?}: {} at once", items - before);
        }
        assert_eq!((items, rest.len()), (100_000, 0), "{encoding:?}");
        batch.finish(&mut |_, _| {}).expect("it is whole");
    }
}

fn zstd_with_checksum(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("in memory");
    encoder.include_checksum(true).expect("it is legal");
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

#[test]
fn a_body_that_becomes_too_large_gives_what_is_within_the_bound() {
    let text = LINE.repeat(10);
    let bounds = |lines: usize, more: usize| Bounds {
        inflated_bytes_max: (lines * LINE.len() + more) as u64,
        ..BOUNDS
    };
    for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
        let body = match encoding {
            Encoding::Identity => text.clone(),
            Encoding::Gzip => gzip(&text),
            Encoding::Zstd => zstd(&text),
        };
        for size in [1, 7, body.len()] {
            let read = |bounds| read_within(Format::Ndjson, encoding, bounds, body.chunks(size));
            assert_eq!(read(bounds(10, 0)).end, Ok(()), "{encoding:?}");
            for more in [0, 1, LINE.len() - 1] {
                assert_eq!(read(bounds(7, more)).end, Err(("inflated_too_large", 7)), "{encoding:?}");
            }
        }
    }
}

#[test]
fn a_bomb_is_known_by_its_ratio() {
    let bounds = Bounds { inflated_bytes_max: 1 << 40, items_max: 10 };
    let blanks = vec![b' '; 64 << 20];
    for (encoding, body) in [(Encoding::Gzip, gzip(&blanks)), (Encoding::Zstd, zstd(&blanks))] {
        for size in [100, body.len()] {
            let seen = read_within(Format::Ndjson, encoding, bounds, body.chunks(size));
            assert_eq!(seen.codes(), ["inflated_too_much!"], "{encoding:?}");
        }
        // Many small bombs one behind the other are one.
        let small = match encoding {
            Encoding::Gzip => gzip(&blanks[..1 << 20]),
            _ => zstd(&blanks[..1 << 20]),
        };
        let seen = read_within(Format::Ndjson, encoding, bounds, [&small.repeat(64)[..]]);
        assert_eq!(seen.codes(), ["inflated_too_much!"], "{encoding:?}");
        let free = vec![b' '; RATIO_FREE_BYTES as usize];
        let free = if encoding == Encoding::Gzip { gzip(&free) } else { zstd(&free) };
        assert_eq!(read_within(Format::Ndjson, encoding, bounds, [&free[..]]).end, Ok(()), "{encoding:?}");
    }
}

#[test]
fn a_frame_that_wants_much_memory_is_refused() {
    let frame = |window_log: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("in memory");
        encoder.window_log(window_log).expect("it is legal");
        encoder.write_all(LINE).expect("in memory");
        encoder.finish().expect("in memory")
    };
    assert_eq!(read(Format::Ndjson, Encoding::Zstd, [&frame(WINDOW_LOG_MAX)[..]]).codes(), ["ok"]);
    assert_eq!(
        read(Format::Ndjson, Encoding::Zstd, [&frame(WINDOW_LOG_MAX + 1)[..]]).codes(),
        ["malformed_encoding!"]
    );
}
