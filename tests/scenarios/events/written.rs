//! Batches as they are written: the same items in any format, encoding and framing; and sending them byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dataflows::types::Amount;
use serde_json::{Value, json};

use crate::support::Random;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The series of a business, by metric and customer.
pub type Series = (String, Option<String>);

/// What makes an item recognisable. The kinds never equal each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// `id`.
    Plain(String),
    /// Of a CloudEvent: `source` and `id`.
    Event(String, String),
    /// None but its place under the key of its batch.
    Place(String, usize),
}

/// One item. `metric_name` may be of a series that is not there.
#[derive(Clone, Debug)]
pub struct Item {
    pub series: Series,
    pub amount: Amount,
    pub timestamp: Option<String>,
    pub identity: Identity,
}

/// How items are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Lines,
    Array,
    Csv,
    EventBatch,
    Event,
    Binary,
}

/// A request, but for its key.
pub struct Written {
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

/// Writes items; CloudEvents if `are_events`, else objects or rows.
pub fn write(items: &[Item], are_events: bool, random: &mut Random) -> (Format, Written) {
    let format = match (are_events, items.len(), random.below(3)) {
        (true, 1, 0) => Format::Event,
        (true, 1, 1) => Format::Binary,
        (true, ..) => Format::EventBatch,
        (false, _, 0) => Format::Lines,
        (false, _, 1) => Format::Array,
        (false, ..) => Format::Csv,
    };
    let (media_type, body) = match format {
        Format::Lines => ("application/x-ndjson", items.iter().map(|item| object(item) + "\n").collect()),
        Format::Array => {
            ("application/json", format!("[{}]", items.iter().map(object).collect::<Vec<_>>().join(", ")))
        }
        Format::Csv => ("text/csv; charset=utf-8", csv(items)),
        Format::EventBatch => {
            let events = items.iter().map(|item| event(item, random)).collect::<Vec<_>>().join(",\n");
            ("application/cloudevents-batch+json", format!("[{events}]"))
        }
        Format::Event => ("application/cloudevents+json", event(&items[0], random)),
        Format::Binary => ("application/json", format!(r#"{{"value": {}}}"#, items[0].amount)),
    };
    let mut headers = vec![format!("content-type: {media_type}")];
    if format == Format::Binary {
        headers.extend(attributes(&items[0]).map(|(name, value)| format!("ce-{name}: {value}")));
    }
    let mut body = body.into_bytes();
    if format != Format::Binary {
        match random.below(3) {
            0 => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&body).expect("in memory");
                body = encoder.finish().expect("in memory");
                headers.push("content-encoding: gzip".to_owned());
            }
            1 => {
                body = zstd::encode_all(&body[..], 1).expect("in memory");
                headers.push("content-encoding: zstd".to_owned());
            }
            _ => {}
        }
    }
    (format, Written { headers, body })
}

fn id(item: &Item) -> Option<&str> {
    match &item.identity {
        Identity::Plain(id) => Some(id),
        Identity::Event(..) | Identity::Place(..) => None,
    }
}

fn object(item: &Item) -> String {
    let (metric_name, customer_id) = &item.series;
    let mut text = format!(r#"{{"metric_name": "{metric_name}", "value": {}"#, item.amount);
    for (name, value) in
        [("customer_id", customer_id.as_deref()), ("id", id(item)), ("timestamp", item.timestamp.as_deref())]
    {
        text.extend(value.map(|value| format!(r#", "{name}": "{value}""#)));
    }
    text + "}"
}

fn csv(items: &[Item]) -> String {
    let row = |item: &Item| {
        let (metric_name, customer_id) = &item.series;
        let [customer_id, id, timestamp] =
            [customer_id.as_deref(), id(item), item.timestamp.as_deref()].map(Option::unwrap_or_default);
        format!("{timestamp},\"{metric_name}\",{},{id},{customer_id}\r\n", item.amount)
    };
    let rows: String = items.iter().map(row).collect();
    format!("timestamp,metric_name,value,id,customer_id\r\n{rows}")
}

/// The attributes of a CloudEvent, as they stand in it and in headers.
fn attributes(item: &Item) -> impl Iterator<Item = (&'static str, &str)> {
    let Identity::Event(source, id) = &item.identity else { panic!("{item:?} is no CloudEvent") };
    let (metric_name, customer_id) = &item.series;
    let required = [("specversion", "1.0"), ("type", metric_name), ("source", source), ("id", id)];
    let others = [("subject", customer_id.as_deref()), ("time", item.timestamp.as_deref())];
    required.into_iter().chain(others.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn event(item: &Item, random: &mut Random) -> String {
    let attributes: String =
        attributes(item).map(|(name, value)| format!(r#""{name}": "{value}", "#)).collect();
    let quote = if random.one_in(2) { "\"" } else { "" };
    format!(r#"{{{attributes}"data": {{"value": {quote}{}{quote}}}}}"#, item.amount)
}

/// Sends a request as one that is chunked or has a length; status and JSON, or nothing if the answer did not come.
pub fn send(base: &str, headers: &[String], body: &[u8], random: &mut Random) -> Option<(u16, Value)> {
    let address = base.strip_prefix("http://")?;
    let Ok(mut stream) = TcpStream::connect(address) else {
        return Some((503, json!({"outcome": "rejected", "code": "nobody_listens"})));
    };
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let is_chunked = random.one_in(3);
    let framing = if is_chunked {
        "transfer-encoding: chunked".to_owned()
    } else {
        format!("content-length: {}", body.len())
    };
    let headers = headers.join("\r\n");
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{framing}\r\n{headers}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut rest = body;
    while !rest.is_empty() {
        let piece;
        (piece, rest) = rest.split_at(rest.len().min(1 + random.below(30_000)));
        if is_chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).ok()?;
        }
        stream.write_all(piece).ok()?;
        if is_chunked {
            stream.write_all(b"\r\n").ok()?;
        }
    }
    if is_chunked {
        stream.write_all(b"0\r\n\r\n").ok()?;
    }
    let mut read = Vec::new();
    stream.read_to_end(&mut read).ok()?;
    let text = String::from_utf8(read).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status: u16 = head.get(9..12)?.parse().ok()?;
    let length = head.to_ascii_lowercase();
    let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    if length.is_some_and(|length: usize| length != body.len()) {
        return None;
    }
    Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}
