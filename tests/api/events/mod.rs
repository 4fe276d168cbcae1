//! `POST /api/v1/events`, item by item and byte by byte: what each bad input is answered, and what of it counts.

mod bodies;
mod items;
mod world;

use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Lines for the series `m`.
fn many(values: impl Iterator<Item = usize>) -> String {
    values.map(|value| format!("{{\"metric_name\":\"m\",\"value\":{value}}}\n")).collect()
}
