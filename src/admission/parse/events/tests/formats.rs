//! Tables: what a well-formed body of each format means.

use super::super::item;
use super::*;

const ONE: i128 = Amount::UNIT;

fn items(format: Format, body: impl AsRef<[u8]>) -> Vec<Event<'static>> {
    let seen = read(format, Encoding::Identity, [body.as_ref()]);
    assert_eq!(seen.end, Ok(()));
    seen.items.into_iter().map(|item| item.expect("every item is good")).collect()
}

fn dated(event: Event<'static>, micros: i64, id: &'static str) -> Event<'static> {
    Event { event_at: Some(Micros(micros)), id: Some(Identity::Plain(Cow::Borrowed(id))), ..event }
}

#[test]
fn lines_are_items_and_blank_ones_are_none() {
    let body = "\u{feff}{\"metric_name\":\"calls\"}\r\n\n  \t\r\n\
        {\"id\": \"e-1\", \"scope\" : \"customer\", \"customer_id\": \"c1\", \"metric_name\": \"a.b:c-d_E\", \
        \"timestamp\": \"1970-01-01T00:00:01.5Z\", \"value\": -2.25e1 }\n\
        {\"metric_name\":\"calls\",\"customer_id\":null,\"scope\":\"business\",\"value\":null,\"id\":null,\"timestamp\":null}\n\
        {\"metric_name\":\"\\u0063alls\",\"customer_id\":\"a\\\"b\\\\\"}";
    assert_eq!(
        items(Format::Ndjson, body),
        [
            event("calls", None, ONE),
            dated(event("a.b:c-d_E", Some("c1"), -22 * ONE - ONE / 2), 1_500_000, "e-1"),
            event("calls", None, ONE),
            event("calls", Some(r#"a"b\"#), ONE),
        ]
    );
}

#[test]
fn an_item_without_escapes_is_borrowed_from_the_chunk() {
    let body = br#"{"metric_name":"calls","customer_id":"c12345","value":1.5,"timestamp":"2026-11-24T10:00:00Z","id":"evt_0000000001"}
"#;
    assert!(item::usual(std::str::from_utf8(body).expect("ASCII")).is_some(), "it goes the short way");
    let within = |part: &Cow<'_, str>| body.as_ptr_range().contains(&part.as_ptr());
    let mut items = 0;
    let mut sink = |_, event: Result<Event<'_>, Rejection>| {
        let event = event.expect("it is good");
        let Some(Identity::Plain(id)) = &event.id else { panic!("it has an id") };
        let customer_id = event.customer_id.as_ref().expect("it has a customer");
        assert!(within(&event.metric_name) && within(customer_id) && within(id));
        assert_eq!(event.event_at, Some(Micros(1_795_514_400_000_000)));
        items += 1;
    };
    Batch::new(Format::Ndjson, Encoding::Identity, BOUNDS).push(body, &mut sink).expect("it is well-formed");
    assert_eq!(items, 1);
}

#[test]
fn an_array_is_read_element_by_element() {
    assert_eq!(items(Format::JsonArray, " [ ] "), []);
    assert_eq!(
        items(
            Format::JsonArray,
            "\u{feff}[{\"metric_name\":\"a\"} , {\"metric_name\":\"b\",\"value\":0.1}\n]\n"
        ),
        [event("a", None, ONE), event("b", None, ONE / 10)]
    );
    assert_eq!(
        codes(
            Format::JsonArray,
            r#"[1, "a,]", [[{}],2], null, true, {"metric_name":"a","x":"}"}, {"metric_name":"]"}, {"metric_name":"a"}]"#
        ),
        [
            "wrong_type",
            "wrong_type",
            "wrong_type",
            "wrong_type",
            "wrong_type",
            "unknown_field",
            "invalid_name",
            "ok"
        ]
    );
}

#[test]
fn rows_are_named_by_the_header_in_any_order() {
    let body = "\u{feff}id,value,metric_name,scope,customer_id,timestamp\r\n\
        e1,2,calls,,c1,1970-01-01T00:00:01Z\r\n\
        \r\n\
        ,,calls,business,,\n\
        \"e\"\"2\",\"-1.5\",\"calls\",customer,\"c,1\",1970-01-01 00:00:00Z";
    assert_eq!(
        items(Format::Csv, body),
        [
            dated(event("calls", Some("c1"), 2 * ONE), 1_000_000, "e1"),
            event("calls", None, ONE),
            dated(event("calls", Some("c,1"), -ONE * 3 / 2), 0, "e\"2"),
        ]
    );
    assert_eq!(items(Format::Csv, "metric_name\n"), []);
    assert_eq!(items(Format::Csv, "metric_name\na\rb"), [event("a", None, ONE), event("b", None, ONE)]);
}

fn cloud(event: Event<'static>, source: &'static str, id: &'static str) -> Event<'static> {
    Event { id: Some(Identity::CloudEvent { source: source.into(), id: id.into() }), ..event }
}

#[test]
fn a_cloud_event_of_another_service_works_unchanged() {
    // As an OpenMeter client sends it, and with extensions.
    let openmeter = r#"{"specversion":"1.0","type":"prompt","id":"00001/é","time":"1970-01-01T00:00:01Z","source":"/my app",
        "subject":"customer-1","datacontenttype":"application/json","data":{"tokens":"123456","model":"gpt","value":"12.5"},
        "traceparent":"00-x","partitionkey":7}"#;
    let expected = cloud(event("prompt", Some("customer-1"), 12 * ONE + ONE / 2), "/my app", "00001/é");
    let expected = Event { event_at: Some(Micros(1_000_000)), ..expected };
    assert_eq!(items(Format::CloudEvent, openmeter), std::slice::from_ref(&expected));
    assert_eq!(
        items(Format::CloudEventBatch, format!("[{openmeter},{openmeter}]")),
        [expected.clone(), expected]
    );
}

#[test]
fn the_amount_of_a_cloud_event_is_in_its_data_or_one() {
    let amount = |member: &str| {
        let body = format!(r#"{{"specversion":"1.0","type":"a","source":"s","id":"1"{member}}}"#);
        items(Format::CloudEvent, body)[0].amount.0
    };
    for member in [
        "",
        r#","data":null"#,
        r#","data":{}"#,
        r#","data":{"value":null}"#,
        r#","data":[{"value":2}]"#,
        r#","data":"{\"value\":2}""#,
        r#","data":7"#,
        r#","data_base64":"AAEC""#,
        r#","data_base64":"""#,
        r#","data_base64":"eyJ2YWx1ZSI6MX0=","data":null"#,
        r#","datacontenttype":"text/plain","data_base64":"eyJ2YWx1ZSI6ICItMi41IiB9""#,
    ] {
        assert_eq!(amount(member), ONE, "{member}");
    }
    for member in [
        r#","data":{"value":-2.5}"#,
        r#","data":{"value":"-2.5","value2":{"value":3}}"#,
        r#","data": { "value" : "-25e-1" } "#,
        r#","data_base64":"eyJ2YWx1ZSI6ICItMi41IiB9""#,
        r#","datacontenttype":"application/vnd.x+json; charset=utf-8","data_base64":"eyJ2YWx1ZSI6ICItMi41IiB9""#,
    ] {
        assert_eq!(amount(member), -2 * ONE - ONE / 2, "{member}");
    }
}

const HEADERS: [(&str, &[u8]); 5] = [
    ("Host", b"localhost"),
    ("CE-SpecVersion", b"1.0"),
    ("ce-type", b"calls"),
    ("ce-source", b"/a%20b%C3%A9"),
    ("ce-id", b" \"x \\\"%25\" "),
];

#[test]
fn a_cloud_event_in_binary_mode_is_in_its_headers() {
    let with = |more: &[(&'static str, &'static [u8])], body: &'static [u8]| {
        let headers = HEADERS.iter().chain(more).copied();
        parse_binary(headers, body).map(owned)
    };
    let plain = cloud(event("calls", None, ONE), "/a bé", "x \"%");
    assert_eq!(with(&[], b""), Ok(plain.clone()));
    assert_eq!(with(&[("content-type", b"image/png")], b"\x89PNG"), Ok(plain.clone()));
    let full = with(
        &[("ce-subject", b"c1"), ("ce-time", b"1970-01-01T00:00:01Z"), ("content-type", b"application/json")],
        br#" {"value": "3"} "#,
    );
    let expected = Event { customer_id: Some("c1".into()), amount: Amount(3 * ONE), ..plain };
    assert_eq!(full, Ok(Event { event_at: Some(Micros(1_000_000)), ..expected }));
    assert!(is_binary("CE-specversion") && !is_binary("ce-id"));
    for (more, body, code) in [
        (("ce-id", b"2".as_slice()), b"".as_slice(), "repeated_field"),
        (("ce-subject", b"a/b"), b"", "invalid_id"),
        (("ce-subject", b"%ff"), b"", "invalid_text"),
        (("ce-subject", b"\xff"), b"", "invalid_text"),
        (("ce-subject", b"\"a"), b"", "invalid_text"),
        (("ce-time", b"now"), b"", "invalid_time"),
        (("content-type", b"application/json"), b"{", "malformed_json"),
        (("content-type", b"application/json"), br#"{"value":"x"}"#, "wrong_type"),
        (("content-type", b"text/json"), br#"{"value":1e99}"#, "amount_out_of_range"),
        (("content-type", b"text/json"), &[b' '; ITEM_BYTES_MAX + 1], "item_too_large"),
    ] {
        let headers = HEADERS.into_iter().chain([more]);
        assert_eq!(parse_binary(headers, body).expect_err("it is bad").code, code, "{more:?}");
    }
    for missing in 1..HEADERS.len() {
        let headers = HEADERS.into_iter().enumerate().filter(|(at, _)| *at != missing);
        let rejection = parse_binary(headers.map(|(_, header)| header), b"").expect_err("one is missing");
        assert_eq!(rejection.code, "missing_field");
    }
}

#[test]
fn media_types_and_encodings_are_named_as_http_names_them() {
    for (name, format) in [
        ("application/x-ndjson", Some(Format::Ndjson)),
        ("Application/JSON; charset=utf-8", Some(Format::JsonArray)),
        ("text/csv;header=present", Some(Format::Csv)),
        ("application/cloudevents+json", Some(Format::CloudEvent)),
        ("application/cloudevents-batch+json", Some(Format::CloudEventBatch)),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(Format::of(name), format, "{name}");
    }
    for (name, encoding) in [
        ("gzip", Some(Encoding::Gzip)),
        ("X-GZIP ", Some(Encoding::Gzip)),
        ("zstd", Some(Encoding::Zstd)),
        ("identity", Some(Encoding::Identity)),
        ("gzip, zstd", None),
        ("br", None),
    ] {
        assert_eq!(Encoding::of(name), encoding, "{name}");
    }
}
