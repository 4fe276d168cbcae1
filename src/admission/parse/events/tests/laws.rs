//! Laws: how the bytes are cut and compressed changes nothing, items are what a naive reader has them, the short way
//! through an item agrees with the long one, and no input panics.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::{cloudevent, item};
use super::*;

/// A JSON text for one of the fields: mostly right, sometimes not.
fn value_of(field: &'static str) -> BoxedStrategy<String> {
    let string = |strategy: BoxedStrategy<String>| {
        (strategy, 0u8..8).prop_map(|(text, style)| quoted(&text, style)).boxed()
    };
    let right = match field {
        "metric_name" | "type" => string("[A-Za-z0-9_.:-]{1,20}".boxed()),
        "scope" => string(select(vec!["business", "customer"]).prop_map(str::to_owned).boxed()),
        "value" => {
            prop_oneof!["-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,9})?", "-?[1-9](\\.[0-9])?[eE][+]?[0-9]"].boxed()
        }
        "timestamp" | "time" => string(times().boxed()),
        "specversion" => string(Just("1.0".to_owned()).boxed()),
        "data" => {
            let value = prop_oneof![value_of("value"), value_of("value").prop_map(|value| quoted(&value, 1))];
            value.prop_map(|value| format!("{{\"model\":[{{}},\"]}}\"],\"value\":{value}}}")).boxed()
        }
        _ => string("[!-.0-~]{1,20}".boxed()),
    };
    let wrong = select(vec![
        "null",
        "true",
        "1",
        "1e16",
        "-1e300",
        "[]",
        "{\"a\":[1,\"]\"]}",
        "\"\"",
        "\"a b\"",
        "\"é\"",
        "\"a/b\"",
        "\"tenant\"",
        "\"2026-02-30T00:00:00Z\"",
        "\"\\ud83d\\ude00\"",
        "\"\\n\"",
    ]);
    prop_oneof![12 => right, 1 => wrong.prop_map(str::to_owned)].boxed()
}

fn times() -> impl Strategy<Value = String> {
    let micros = -62_135_596_800_000_000i64..=253_402_300_799_999_999;
    let offset = select(vec!["", "", "", "+00:00", "-07:30", "+14:00"]);
    (micros, offset).prop_map(|(micros, offset)| {
        let text = jiff::Timestamp::from_microsecond(micros).expect("it is in range").to_string();
        // Not the moment any more, and perhaps before year 1: then the model must not be asked.
        if offset.is_empty() || micros < 0 { text } else { text.replace('Z', offset) }
    })
}

/// A string, written plainly or with escapes.
fn quoted(text: &str, style: u8) -> String {
    match style {
        0 => format!(
            "\"{}\"",
            text.chars().map(|symbol| format!("\\u{:04x}", symbol as u32)).collect::<String>()
        ),
        _ => serde_json::to_string(text).expect("a string is JSON"),
    }
}

/// An object with most of its fields, in any order, with spaces anywhere.
fn object(fields: &'static [&'static str]) -> impl Strategy<Value = String> {
    let members: Vec<_> =
        fields.iter().map(|field| (Just(*field), value_of(field), prop::bool::weighted(0.9))).collect();
    let unknown = prop::bool::weighted(0.03);
    let space = select(vec!["", "", " ", "\t ", "\r"]);
    (members, unknown, space, any::<u64>()).prop_map(|(members, unknown, space, order)| {
        let mut members: Vec<_> = members
            .into_iter()
            .filter(|(_, _, is_there)| *is_there)
            .map(|(field, value, _)| format!("{space}\"{field}\"{space}:{space}{value}"))
            .collect();
        if unknown {
            members.push("\"colour\":{\"of\":[\"]\"]}".to_owned());
        }
        let turn = order as usize % members.len().max(1);
        members.rotate_left(turn);
        format!("{space}{{{}{space}}}{space}", members.join(","))
    })
}

const FIELDS: &[&str] = &item::FIELDS;
const ATTRIBUTES: &[&str] = &["specversion", "type", "source", "id", "subject", "time", "data"];

/// Bytes that look like the format for a while.
fn near(format: Format) -> BoxedStrategy<Vec<u8>> {
    let fields =
        if matches!(format, Format::CloudEvent | Format::CloudEventBatch) { ATTRIBUTES } else { FIELDS };
    let cells = vec(
        prop_oneof![
            Just(String::new()),
            "[a-z0-9]{1,3}",
            "\"[a-z,\r\n]{0,3}(\"\")?\"",
            Just("\"".to_owned())
        ],
        1..8,
    );
    let piece = match format {
        Format::Csv => cells.prop_map(|cells| cells.join(",")).boxed(),
        _ => object(fields).boxed(),
    };
    let piece = prop_oneof![
        8 => piece.prop_map(String::into_bytes),
        1 => select(vec!["", " ", "\r", "[", "]", "{", "}", ",", "\"", "\\", "1", "null", "\u{feff}"]).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..6),
        1 => (0..3usize).prop_map(|more| vec![b' '; ITEM_BYTES_MAX - 1 + more]),
    ];
    let mark = select(vec!["", "", "\u{feff}"]);
    let (start, between, end) = match format {
        Format::JsonArray | Format::CloudEventBatch => ("[", ",", "]"),
        Format::Csv => ("metric_name,value,id\n", "\n", ""),
        _ => ("", "\n", ""),
    };
    let start = prop_oneof![9 => Just(start), 1 => Just("")];
    let end = prop_oneof![9 => Just(end), 1 => Just("\r\n")];
    (mark, start, vec(piece, 0..8), end)
        .prop_map(move |(mark, start, pieces, end)| {
            [mark.as_bytes(), start.as_bytes(), &pieces.join(between.as_bytes()), end.as_bytes()].concat()
        })
        .boxed()
}

/// The bytes, cut at some places.
fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn assert_same(format: Format, items: Vec<Result<Event<'static>, &'static str>>, body: &str) {
    assert_eq!(read(format, Encoding::Identity, [body.as_bytes()]), Seen { items, end: Ok(()) }, "{body}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn chunks_change_nothing((format, body) in select(&FORMATS[..]).prop_flat_map(|format| (Just(format), near(format))), cuts in vec(any::<Index>(), 0..20)) {
        let whole = read(format, Encoding::Identity, [&body[..]]);
        prop_assert_eq!(read(format, Encoding::Identity, cut(&body, &cuts)), whole);
    }

    #[test]
    fn single_bytes_change_nothing((format, body) in select(&FORMATS[..]).prop_flat_map(|format| (Just(format), near(format)))) {
        let whole = read(format, Encoding::Identity, [&body[..]]);
        prop_assert_eq!(read(format, Encoding::Identity, body.chunks(1)), whole);
    }

    #[test]
    fn compression_changes_nothing(
        (format, body) in select(&FORMATS[..]).prop_flat_map(|format| (Just(format), near(format))),
        members in vec(any::<Index>(), 0..4),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let whole = read(format, Encoding::Identity, [&body[..]]);
        for (encoding, compress) in [(Encoding::Gzip, gzip as fn(&[u8]) -> Vec<u8>), (Encoding::Zstd, zstd)] {
            let body: Vec<u8> = cut(&body, &members).into_iter().flat_map(compress).collect();
            let seen = read(format, encoding, cut(&body, &cuts));
            // What broke the text is said before the rest of the stream is looked at.
            prop_assert_eq!(&seen, &whole, "{:?}", encoding);
        }
    }

    #[test]
    fn items_are_those_of_the_model(objects in vec(object(FIELDS), 0..8)) {
        let lines = objects.join("\n").replace('\r', " ");
        assert_same(Format::Ndjson, model::lines(&lines), &lines);
        let array = format!("[{}]", objects.join(","));
        assert_same(Format::JsonArray, model::array(&array, model::item), &array);
    }

    #[test]
    fn cloud_events_are_those_of_the_model(objects in vec(object(ATTRIBUTES), 1..8)) {
        let array = format!("[{}]", objects.join(","));
        assert_same(Format::CloudEventBatch, model::array(&array, model::cloud_event), &array);
        assert_same(Format::CloudEvent, vec![model::text(&objects[0], model::cloud_event)], &objects[0]);
    }

    /// A row says what the object with its cells as strings, and its value as a number, says.
    #[test]
    fn rows_are_those_of_the_model(
        columns in Just(FIELDS.to_vec()).prop_shuffle(),
        rows in vec(vec(prop_oneof!["[a-z]{0,3}", "[a-z,\"\r\n/]{0,3}", "[0-9.]{1,4}", select(vec!["business", "customer"]).prop_map(str::to_owned), times()], 6), 1..8),
        quote in any::<bool>(),
    ) {
        let cell = |cell: &String| if quote || cell.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() };
        let text: Vec<_> = rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(",")).collect();
        let body = format!("{}\r\n{}\r\n", columns.join(","), text.join("\r\n"));
        let expected = rows.iter().map(|row| {
            let mut object = serde_json::Map::new();
            for (column, cell) in columns.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
                let number = serde_json::from_str::<serde_json::Number>(cell).ok().filter(|_| *column == "value");
                let value = match number {
                    Some(number) => number.into(),
                    // No string is an amount.
                    None => serde_json::Value::String(cell.clone()),
                };
                object.insert((*column).to_owned(), value);
            }
            model::item(&object)
        });
        // Only the order in which two faults of one row are found may differ.
        let seen = read(Format::Csv, Encoding::Identity, [body.as_bytes()]);
        prop_assert_eq!(seen.end, Ok(()));
        prop_assert_eq!(seen.items.len(), rows.len());
        for (seen, expected) in seen.items.into_iter().zip(expected) {
            prop_assert!(seen == expected || seen.is_err() && expected.is_err(), "{seen:?} {expected:?} {body}");
        }
    }

    /// The short way says what the long one says, or nothing; also of what has been damaged.
    #[test]
    fn the_usual_form_means_what_any_form_means(text in object(FIELDS), damage in proptest::option::of((any::<Index>(), any::<char>()))) {
        let text: String = match damage {
            None => text,
            Some((place, other)) => {
                let place = place.index(text.chars().count());
                text.chars().enumerate().map(|(at, symbol)| if at == place { other } else { symbol }).collect()
            }
        };
        if let Some(usual) = item::usual(&text) {
            prop_assert_eq!(Ok(usual), item::any(&text), "{}", text);
        }
    }

    #[test]
    fn what_clients_write_is_in_the_usual_form(
        metric_name in "[A-Za-z0-9_.:-]{1,100}",
        customer_id in "[!#-.0-\\[\\]-~]{1,255}",
        value in "-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,9})?",
        space in select(vec!["", " "]),
    ) {
        let members = [format!("\"metric_name\":{space}\"{metric_name}\""), format!("\"customer_id\":{space}\"{customer_id}\""), format!("\"value\":{space}{value}"), format!("\"scope\":{space}\"customer\"")];
        let text = format!("{{{}}}", members.join(&format!(",{space}")));
        prop_assert!(item::usual(&text).is_some(), "{text}");
    }

    #[test]
    fn no_bytes_panic(body in vec(prop_oneof![any::<u8>(), select(b"{}[],:\"\\ \n0e-.n".to_vec())], 0..60)) {
        for format in FORMATS {
            for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
                read(format, encoding, [&body[..]]);
            }
        }
        let _ = cloudevent::parse(&body);
        let headers = [("ce-specversion", b"1.0".as_slice()), ("ce-type", &body), ("ce-source", &body), ("ce-id", &body)];
        let _ = parse_binary(headers, &body);
    }
}
