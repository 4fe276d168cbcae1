//! Tables: what is wrong, and under which code.

use super::*;

const GOOD: &str = r#"{"metric_name":"a"}"#;

/// Items that are wrong by themselves, with their codes: the same in lines and in arrays.
const WRONG: [(&str, &str); 40] = [
    ("1", "wrong_type"),
    ("[]", "wrong_type"),
    ("{}", "missing_field"),
    (r#"{"metric_name":null}"#, "wrong_type"),
    (r#"{"metric_name":1}"#, "wrong_type"),
    (r#"{"metric_name":""}"#, "invalid_name"),
    (r#"{"metric_name":"a b"}"#, "invalid_name"),
    (r#"{"metric_name":"a\u0000"}"#, "invalid_name"),
    (r#"{"metric_name":"\ud800"}"#, "wrong_type"),
    (r#"{"metric_name":"\udc00\ud800"}"#, "wrong_type"),
    (r#"{"metric_name":"é"}"#, "invalid_name"),
    (r#"{"metric_name":"a","metric_name":"a"}"#, "repeated_field"),
    (r#"{"metric_name":"a","id":null,"id":"x"}"#, "repeated_field"),
    (r#"{"metric_name":"a","metric_nam\u0065":"a"}"#, "repeated_field"),
    (r#"{"metric_name":"a","colour":1}"#, "unknown_field"),
    (r#"{"metric_name":"a","":1}"#, "unknown_field"),
    (r#"{"metric_name":"a","customer_id":""}"#, "invalid_id"),
    (r#"{"metric_name":"a","customer_id":"a/b"}"#, "invalid_id"),
    (r#"{"metric_name":"a","customer_id":"\u0000"}"#, "invalid_id"),
    (r#"{"metric_name":"a","customer_id":7}"#, "wrong_type"),
    (r#"{"metric_name":"a","id":"a b"}"#, "invalid_id"),
    (r#"{"metric_name":"a","id":[]}"#, "wrong_type"),
    (r#"{"metric_name":"a","scope":"tenant"}"#, "invalid_option"),
    (r#"{"metric_name":"a","scope":1}"#, "wrong_type"),
    (r#"{"metric_name":"a","scope":"customer"}"#, "missing_field"),
    (r#"{"metric_name":"a","scope":"business","customer_id":"c"}"#, "invalid_combination"),
    (r#"{"metric_name":"a","value":"1"}"#, "wrong_type"),
    (r#"{"metric_name":"a","value":true}"#, "wrong_type"),
    (r#"{"metric_name":"a","value":{"a":1}}"#, "wrong_type"),
    (r#"{"metric_name":"a","value":1e16}"#, "amount_out_of_range"),
    (r#"{"metric_name":"a","value":-1e999999999999999999999}"#, "amount_out_of_range"),
    (r#"{"metric_name":"a","value":1000000000000000.000000001}"#, "amount_out_of_range"),
    (r#"{"metric_name":"a","timestamp":1700000000}"#, "wrong_type"),
    (r#"{"metric_name":"a","timestamp":"2026-01-31"}"#, "invalid_time"),
    (r#"{"metric_name":"a","timestamp":"2026-02-29T00:00:00Z"}"#, "invalid_time"),
    (r#"{"metric_name":"a","timestamp":"0000-01-01T00:00:00Z"}"#, "invalid_time"),
    (r#"{"metric_name":"a","timestamp":"2026-01-01T00:00:00.Z"}"#, "invalid_time"),
    (r#"{"metric_name":"a","timestamp":"2026-01-01T24:00:00Z"}"#, "invalid_time"),
    (r#"{"metric_name":"a","timestamp":"2026-01-01T00:00:00+01"}"#, "invalid_time"),
    (r#"{"metric_name":"a","timestamp":""}"#, "invalid_time"),
];

/// Texts that are no JSON: a line is rejected, an array is broken.
const BROKEN: [&str; 20] = [
    "{",
    "}",
    "{,}",
    "nul",
    "{\"metric_name\":\"a\"",
    "{\"metric_name\":\"a\"}}",
    "{\"metric_name\":\"a\"} {",
    "{\"metric_name\":\"a\",}",
    "{\"metric_name\" \"a\"}",
    "{\"metric_name\":\"a}",
    "{\"metric_name\":\"a\\x\"}",
    "{\"metric_name\":\"a\tb\"}",
    "{'metric_name':'a'}",
    "{metric_name:\"a\"}",
    "{\"metric_name\":\"a\",\"value\":01}",
    "{\"metric_name\":\"a\",\"value\":1.}",
    "{\"metric_name\":\"a\",\"value\":+1}",
    "{\"metric_name\":\"a\",\"value\":NaN}",
    "{\"metric_name\":\"a\",\"value\":0x1f}",
    "{\"metric_name\":\"a\",\"value\":[}]}",
];

#[test]
fn a_wrong_item_stops_nothing() {
    for (item, code) in WRONG {
        let lines = format!("{GOOD}\n{item}\r\n{GOOD}");
        assert_eq!(codes(Format::Ndjson, lines), ["ok", code, "ok"], "{item}");
        let array = format!("[{GOOD},{item},{GOOD}]");
        assert_eq!(codes(Format::JsonArray, array), ["ok", code, "ok"], "{item}");
    }
}

#[test]
fn what_is_no_json_costs_a_line_but_breaks_an_array() {
    for item in BROKEN {
        let lines = codes(Format::Ndjson, format!("{GOOD}\n{item}\n{GOOD}\n"));
        assert!(
            matches!(&lines[..], [_, code, last] if *last == "ok" && (code == "malformed_json" || code == "wrong_type")),
            "{item}: {lines:?}"
        );
        let array = codes(Format::JsonArray, format!("[{GOOD},{item},{GOOD}]"));
        // An element that was whole before it broke is one.
        let stand = if item.starts_with(GOOD) { 2 } else { 1 };
        let expected = [vec!["ok"; stand], vec!["malformed_json!"]].concat();
        assert_eq!(array, expected, "{item}");
    }
    for item in [
        &b"{\"metric_name\":\"\xff\"}"[..],
        b"\xc3",
        b"{\"metric_name\":\"\xed\xa0\x80\"}",
        b"\0",
        b"{\"\0\":1}",
    ] {
        let lines = [GOOD.as_bytes(), item, GOOD.as_bytes()];
        let seen = codes(Format::Ndjson, lines.join(&b'\n'));
        assert!(seen.len() == 3 && seen[1] != "ok" && seen[2] == "ok", "{item:?}: {seen:?}");
        let array = [b"[", &lines.join(&b',')[..], b"]"].concat();
        assert_eq!(codes(Format::JsonArray, array), ["ok", "malformed_json!"], "{item:?}");
    }
}

#[test]
fn a_body_that_is_no_array_is_broken_from_the_start() {
    for (body, code) in [
        ("", "malformed_json!"),
        ("  ", "malformed_json!"),
        ("[", "malformed_json!"),
        ("[,]", "malformed_json!"),
        ("]", "malformed_json!"),
        ("\u{feff}\u{feff}[]", "malformed_json!"),
        (GOOD, "wrong_type!"),
        ("1", "wrong_type!"),
        ("null", "wrong_type!"),
    ] {
        for format in [Format::JsonArray, Format::CloudEventBatch] {
            assert_eq!(codes(format, body), [code], "{body}");
        }
    }
    for tail in ["", ",", ",]", "]]", "] 1", "}", " 1]", "\"a\"]", ":1]"] {
        let seen = codes(Format::JsonArray, format!("[{GOOD}{tail}"));
        assert_eq!(seen, ["ok", "malformed_json!"], "{tail}");
    }
}

#[test]
fn an_item_of_any_depth_is_refused_without_recursion() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = |depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
        for (depth, code) in
            [(40, "nesting_too_deep"), (8_000, "nesting_too_deep"), (40_000, "item_too_large")]
        {
            let item = format!(r#"{{"metric_name":"a","value":{}}}"#, deep(depth));
            assert_eq!(codes(Format::Ndjson, format!("{item}\n{GOOD}")), [code, "ok"], "{open} {depth}");
            assert_eq!(codes(Format::JsonArray, format!("[{item},{GOOD}]")), [code, "ok"], "{open} {depth}");
            let cloud =
                format!(r#"{{"specversion":"1.0","type":"a","source":"s","id":"1","data":{}}}"#, deep(depth));
            assert_eq!(codes(Format::CloudEvent, cloud), [code], "{open} {depth}");
        }
        assert_eq!(
            codes(Format::JsonArray, "[".to_owned() + &open.repeat(1_000_000)).last().map(String::as_str),
            Some("malformed_json!")
        );
    }
}

#[test]
fn a_long_item_is_rejected_by_its_place() {
    let long = |bytes: usize| format!(r#"{{"metric_name":"a"{}}}"#, " ".repeat(bytes - 19));
    let (fits, over) = (long(ITEM_BYTES_MAX), long(ITEM_BYTES_MAX + 1));
    assert_eq!(codes(Format::Ndjson, format!("{fits}\n{over}\n{GOOD}")), ["ok", "item_too_large", "ok"]);
    assert_eq!(codes(Format::JsonArray, format!("[{fits},{over},{GOOD}]")), ["ok", "item_too_large", "ok"]);
    assert_eq!(codes(Format::Ndjson, over), ["item_too_large"]);
    let cell = |bytes: usize| format!("metric_name,id\na,\"{}\"\na,b", "x".repeat(bytes - 1));
    assert_eq!(codes(Format::Csv, cell(ITEM_BYTES_MAX)), ["invalid_id", "ok"]);
    assert_eq!(codes(Format::Csv, cell(ITEM_BYTES_MAX + 1)), ["item_too_large", "ok"]);
    assert_eq!(codes(Format::Csv, cell(5 * ITEM_BYTES_MAX)), ["item_too_large", "ok"]);
    assert_eq!(codes(Format::CloudEvent, "x".repeat(ITEM_BYTES_MAX + 1)), ["item_too_large"]);
}

#[test]
fn a_huge_number_is_read_without_being_held() {
    for (value, code) in [
        ("1".repeat(60_000), "amount_out_of_range"),
        (format!("0.{}", "1".repeat(60_000)), "ok"),
        (format!("1e-{}", "9".repeat(60_000)), "ok"),
        (format!("1e{}", "9".repeat(60_000)), "amount_out_of_range"),
    ] {
        assert_eq!(codes(Format::Ndjson, format!(r#"{{"metric_name":"a","value":{value}}}"#)), [code]);
    }
}

#[test]
fn a_header_names_fields_once_each() {
    for header in [
        "",
        "\n\n",
        "customer_id,value",
        "metric_name,colour",
        "metric_name,metric_name",
        "metric_name,",
        " metric_name",
        "Metric_Name",
        "metric_name;value",
        "\"metric_name",
        "metric_name,customer_id,scope,value,timestamp,id,x",
        "metric_name,customer_id,scope,value,timestamp,id,x,x,x,x,x",
        "{\"metric_name\":\"a\"}",
    ] {
        assert_eq!(codes(Format::Csv, header), ["invalid_header!"], "{header}");
        assert_eq!(codes(Format::Csv, format!("{header}\na,1\n")), ["invalid_header!"], "{header}");
    }
    assert_eq!(codes(Format::Csv, b"metric_name,\xff\na,b"), ["invalid_header!"]);
    assert_eq!(codes(Format::Csv, "x".repeat(ITEM_BYTES_MAX + 2) + "\na"), ["invalid_header!"]);
}

#[test]
fn a_wrong_row_stops_nothing() {
    for (row, code) in [
        ("a", "wrong_field_count"),
        ("a,b,", "wrong_field_count"),
        ("a,1,,,,", "wrong_field_count"),
        ("a,1,,,,,,,,,,,,,,,", "wrong_field_count"),
        (",1", "missing_field"),
        ("a b,1", "invalid_name"),
        ("a,x", "wrong_type"),
        ("a,+1", "wrong_type"),
        ("a, 1", "wrong_type"),
        ("a,NaN", "wrong_type"),
        ("a,1e16", "amount_out_of_range"),
        ("\"a\nb\",1", "invalid_name"),
        ("\"\nb,5\n\",1", "invalid_name"),
    ] {
        let body = format!("metric_name,value\na,1\n{row}\nb,2\n");
        assert_eq!(codes(Format::Csv, body), ["ok", code, "ok"], "{row:?}");
    }
    assert_eq!(
        codes(Format::Csv, b"metric_name,value\n\xff,1\na,\xc3\n\xc3,\xa9\na,1"),
        ["malformed_csv", "malformed_csv", "malformed_csv", "ok"]
    );
    let names = ["customer_id", "scope", "timestamp", "id"];
    for (name, cell, code) in [
        (0, "a/b", "invalid_id"),
        (1, "tenant", "invalid_option"),
        (1, "customer", "missing_field"),
        (2, "now", "invalid_time"),
        (3, "é", "invalid_id"),
    ] {
        let body = format!("{},metric_name\n{cell},a\n,a", names[name]);
        assert_eq!(codes(Format::Csv, body), [code, "ok"]);
    }
    assert_eq!(codes(Format::Csv, "metric_name,scope,customer_id\na,business,c"), ["invalid_combination"]);
}

#[test]
fn a_quote_that_does_not_close_takes_what_follows_along() {
    let body = "metric_name,customer_id\na,b\na,\"c\na,d\na,e\n";
    assert_eq!(codes(Format::Csv, body), ["ok", "malformed_csv"]);
    assert_eq!(codes(Format::Csv, "metric_name\n\""), ["malformed_csv"]);
    assert_eq!(
        codes(Format::Csv, format!("metric_name\n\"{}", "x\n".repeat(ITEM_BYTES_MAX))),
        ["malformed_csv"]
    );
}

#[test]
fn a_wrong_cloud_event_stops_nothing() {
    let with = |member: &str, text: &str| {
        let members =
            [("specversion", r#""1.0""#), ("type", r#""a""#), ("source", r#""s""#), ("id", r#""1""#)];
        let mut members: Vec<_> = members.into_iter().filter(|(name, _)| *name != member).collect();
        members.push((member, text));
        let members: Vec<_> = members
            .iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| format!("\"{name}\":{text}"))
            .collect();
        format!("{{{}}}", members.join(","))
    };
    for (member, text, code) in [
        ("specversion", "", "missing_field"),
        ("specversion", r#""0.3""#, "unsupported_specversion"),
        ("specversion", "1.0", "wrong_type"),
        ("type", "", "missing_field"),
        ("type", r#""a b""#, "invalid_name"),
        ("source", "", "missing_field"),
        ("source", r#""""#, "invalid_text"),
        ("source", r#""\u0000""#, "invalid_text"),
        ("id", "", "missing_field"),
        ("id", "null", "wrong_type"),
        ("id", r#""a\nb""#, "invalid_text"),
        ("subject", r#""""#, "invalid_id"),
        ("subject", r#""a/b""#, "invalid_id"),
        ("time", r#""now""#, "invalid_time"),
        ("data", r#"{"value":"1,5"}"#, "wrong_type"),
        ("data", r#"{"value":" 1"}"#, "wrong_type"),
        ("data", r#"{"value":""}"#, "wrong_type"),
        ("data", r#"{"value":true}"#, "wrong_type"),
        ("data", r#"{"value":{}}"#, "wrong_type"),
        ("data", r#"{"value":"1e16"}"#, "amount_out_of_range"),
        ("data", r#"{"value":1e16}"#, "amount_out_of_range"),
        ("data", r#"{"value":1,"value":2}"#, "repeated_field"),
        ("data_base64", r#""%""#, "malformed_base64"),
        ("data_base64", "7", "wrong_type"),
        ("data_base64", r#""e30=","datacontenttype":"application/json","data":{}"#, "invalid_combination"),
        ("data_base64", r#""ew==","datacontenttype":"application/json""#, "malformed_json"),
        ("id2", r#"1,"id":"2""#, "repeated_field"),
    ] {
        let (wrong, good) = (with(member, text), with("x", "1"));
        assert_eq!(codes(Format::CloudEventBatch, format!("[{wrong},{good}]")), [code, "ok"], "{wrong}");
        assert_eq!(codes(Format::CloudEvent, &wrong), [code], "{wrong}");
    }
    for (body, code) in
        [("", "wrong_type"), ("[]", "wrong_type"), ("{", "malformed_json"), ("{} {}", "malformed_json")]
    {
        assert_eq!(codes(Format::CloudEvent, body), [code], "{body}");
    }
    assert_eq!(codes(Format::CloudEvent, b"\xff"), ["malformed_json"]);
}

#[test]
fn a_batch_has_at_most_so_many_items() {
    let bounds = Bounds { items_max: 2, ..BOUNDS };
    for (lines, expected) in [
        ("1\n\n1\n\n", &["wrong_type", "wrong_type"][..]),
        ("1\n1\n1", &["wrong_type", "wrong_type", "too_many_items!"]),
    ] {
        assert_eq!(
            read_within(Format::Ndjson, Encoding::Identity, bounds, [lines.as_bytes()]).codes(),
            expected
        );
    }
}

#[test]
fn what_an_item_says_of_itself_is_cut_short() {
    let mut detail = String::new();
    let mut sink = |_, event: Result<Event<'_>, Rejection>| detail = event.expect_err("unknown").detail;
    let mut batch = Batch::new(Format::Ndjson, Encoding::Identity, BOUNDS);
    let line = format!("{{\"metric_name\":\"a\",\"{}\":1}}\n", "é".repeat(10_000));
    batch.push(line.as_bytes(), &mut sink).expect("it is not broken");
    assert!(detail.starts_with("éé") && detail.ends_with('…') && detail.len() < 500, "{detail}");
    let mut sink = |_, event: Result<Event<'_>, Rejection>| detail = event.expect_err("unknown").detail;
    batch.push(b"{\"metric_name\":\"a\",\"colour\":1}\n", &mut sink).expect("it is not broken");
    assert_eq!(detail, "colour: there is no such field");
}
