//! Signatures against Stripe's own library, PyPI's `stripe`: it verifies what we sign, we verify what it signs, and both give
//! the same verdicts about headers that are changed. It is installed once, under target/tools.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};
use serde_json::{Value, json};
use tracktags::stripe::verify;

use super::fake::webhooks::sign;

const VERSION: &str = "16.1.0";
const CASES: usize = 400;

/// A virtual environment of Python with the library.
fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/stripe");
    let python = venv.join("bin/python");
    let check = format!("import stripe; assert stripe.VERSION == '{VERSION}', stripe.VERSION");
    let is_there =
        || Command::new(&python).args(["-c", &check]).output().is_ok_and(|done| done.status.success());
    if !is_there() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new(&python).args(install).arg(format!("stripe=={VERSION}")));
        assert!(is_there(), "the library was installed, but not in this version");
    }
    python
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// What the library makes of each case.
fn ask(cases: &[Value]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stripe/oracle.py");
    let mut command = Command::new(python());
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python runs");
    let text = json!(cases).to_string();
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("python reads");
    let done = child.wait_with_output().expect("python ends");
    assert!(done.status.success(), "the library has failed");
    serde_json::from_slice(&done.stdout).expect("verdicts")
}

#[derive(Clone, Debug)]
struct Case {
    secret: String,
    signed_at: i64,
    now: i64,
    body: String,
    header: String,
}

/// Bodies and secrets of all kinds, signed by us, and changed in one of several ways.
fn case() -> impl Strategy<Value = Case> {
    let secret = "whsec_[A-Za-z0-9+/=]{1,40}|[!-~é]{1,20}";
    let body = prop_oneof![".{0,200}", "\\{\"id\":\"evt_[a-z0-9]{5}\",\"x\":\"[^\"\\\\]{0,40}\"\\}"];
    (secret, 1_000_000_000_i64..4_000_000_000, -310_i64..310, body, 0_u8..10, any::<prop::sample::Index>())
        .prop_map(|(secret, signed_at, offset, body, change, place)| {
            let other = sign(&["whsec_other"], signed_at, body.as_bytes());
            let plain = sign(&[&secret], signed_at, body.as_bytes());
            let header = match change {
                0 => other,
                1 => sign(&["whsec_other", &secret], signed_at, body.as_bytes()),
                2 => format!("{plain},v0=00"),
                3 => plain.replace("v1=", "v0="),
                4 => plain.replace(&format!("t={signed_at}"), &format!("t={}", signed_at + 1)),
                5 => {
                    let mut bytes = plain.into_bytes();
                    // A digit of the signature becomes another one.
                    let at = bytes.len() - 1 - place.index(64);
                    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
                    String::from_utf8(bytes).expect("digits")
                }
                _ => plain,
            };
            Case { secret, signed_at, now: signed_at + offset, body, header }
        })
}

#[test]
fn stripes_own_library_agrees() {
    let seed = std::env::var("TRACKTAGS_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("TRACKTAGS_TEST_SEED={seed}");
    let config = ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let sample = |_| case().new_tree(&mut runner).expect("a case").current();
    let mut cases: Vec<_> = (0..CASES).map(sample).collect();
    let body = r#"{"id":"evt_1","object":"event","type":"invoice.created"}"#.to_owned();
    let signature = "2bee0752cc25565121a8642e1900d7b413f1cae963aa692b4adfe10c1553ed07";
    let golden = format!("t=1700000000,v1={signature}");
    let (secret, signed_at) = ("whsec_test_0123456789abcdef".to_owned(), 1_700_000_000);
    cases.push(Case { secret, signed_at, now: signed_at, body, header: golden.clone() });

    let asked = |case: &Case| {
        let Case { secret, signed_at, now, body, header } = case;
        json!({"secret": secret, "time": signed_at, "now": now, "body": body, "header": header})
    };
    let answers = ask(&cases.iter().map(asked).collect::<Vec<_>>());
    assert_eq!(answers.len(), cases.len());
    assert_eq!(answers[CASES]["header"], golden);
    let mut accepted = 0;
    for (case, answer) in cases.iter().zip(&answers) {
        let check =
            |header: &str| verify(header, case.body.as_bytes(), [case.secret.as_str()].into_iter(), case.now);
        let theirs = answer["header"].as_str().expect("a header");
        let is_recent = (case.now - case.signed_at).abs() <= 300;
        assert_eq!(check(theirs).is_ok(), is_recent, "signed by the library: {case:?}");
        // The library takes signatures of the future; we do not.
        let is_ahead = case.header_time() > case.now + 300;
        let expected = answer["accepted"] == true && !is_ahead;
        assert_eq!(check(&case.header).is_ok(), expected, "signed by us: {case:?}");
        accepted += usize::from(expected);
    }
    println!("{CASES} cases, {accepted} accepted");
    assert!(accepted > CASES / 3 && accepted < CASES * 4 / 5, "{accepted} accepted: the cases are one-sided");
}

impl Case {
    fn header_time(&self) -> i64 {
        let digits = self.header.split(',').find_map(|part| part.strip_prefix("t="));
        digits.and_then(|digits| digits.parse().ok()).expect("every case has a time")
    }
}
