//! The signature of Stripe's webhooks (<https://docs.stripe.com/webhooks#verify-manually>). In: the header `Stripe-Signature`,
//! the raw body, the secrets that may have signed it, the time. Out: nothing, or why the body must not be believed.
//!
//! ```text
//! Stripe-Signature: t={unix seconds},v1={hex(HMAC-SHA256(secret, "{t}.{body}"))},v1=...,v0=...
//! ```
//! The key is the whole text of the secret, `whsec_` included. One `v1` by one secret is enough; other schemes do not count.
//! Every `v1` is compared with what every secret makes of the body, in constant time and without an early end.
//!
//! What this does not do: know an event again that came before; read the body.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

/// Longest header, in bytes.
pub const HEADER_BYTES_MAX: usize = 4_096;
/// Most parts of a header: one time, and a signature by scheme and secret.
pub const HEADER_PARTS_MAX: usize = 16;
/// How far the time of a signature may be from now, either way, in seconds.
pub const TOLERANCE_SECS: u64 = 300;

/// Why a body is not Stripe's, or not of now. Callers all get the same 400; nothing here tells a secret or a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The header is longer than `HEADER_BYTES_MAX` or has more parts than `HEADER_PARTS_MAX`.
    #[error("the signature's header is too long")]
    TooLong,
    /// The header is not `t=...,v1=...`: a part without `=`, no time or several, or one that is no whole number.
    #[error("the signature's header is not of the form t=...,v1=...")]
    Malformed,
    /// No `v1` is a signature of this body by one of the secrets.
    #[error("no signature is of this body by a known secret")]
    Mismatch,
    /// Signed, but more than `TOLERANCE_SECS` ago or ahead.
    #[error("the signature is not of the last {TOLERANCE_SECS} seconds")]
    OutOfTime,
}

/// Whether one of `secrets` has signed `body` around `now`, in unix seconds. A blank secret signs nothing: anybody knows it.
pub fn verify<'a>(
    header: &str,
    body: &[u8],
    secrets: impl Iterator<Item = &'a str>,
    now: i64,
) -> Result<(), SignatureError> {
    let (time, signatures) = read(header)?;
    let signed_at: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    let mut found = Choice::from(0);
    for secret in secrets.filter(|secret| !secret.trim().is_empty()) {
        let own = signature(secret, time, body);
        for given in &signatures {
            found |= own.as_bytes().ct_eq(given.as_bytes());
        }
    }
    if !bool::from(found) {
        return Err(SignatureError::Mismatch);
    }
    let is_recent = now.abs_diff(signed_at) <= TOLERANCE_SECS;
    is_recent.then_some(()).ok_or(SignatureError::OutOfTime)
}

/// The text of the time, and the signatures of scheme `v1`.
fn read(header: &str) -> Result<(&str, Vec<&str>), SignatureError> {
    if header.len() > HEADER_BYTES_MAX || header.split(',').count() > HEADER_PARTS_MAX {
        return Err(SignatureError::TooLong);
    }
    let (mut time, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        match part.split_once('=').ok_or(SignatureError::Malformed)? {
            ("t", _) if time.is_some() => return Err(SignatureError::Malformed),
            ("t", text) => time = Some(text),
            ("v1", text) => signatures.push(text),
            _ => (),
        }
    }
    // `parse` would take a sign as well.
    let time = time.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    Ok((time.ok_or(SignatureError::Malformed)?, signatures))
}

/// In lower case, as Stripe writes it: a signature has one spelling.
fn signature(secret: &str, time: &str, body: &[u8]) -> String {
    let keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    let signed = [time.as_bytes(), b".", body].iter().fold(keyed, |keyed, part| keyed.chain_update(part));
    signed.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::SignatureError::{Malformed, Mismatch, OutOfTime, TooLong};
    use super::*;

    const SECRET: &str = "whsec_test_0123456789abcdef";
    const BODY: &str = r#"{"id":"evt_1","object":"event","type":"invoice.created"}"#;
    const SIGNATURE: &str = "2bee0752cc25565121a8642e1900d7b413f1cae963aa692b4adfe10c1553ed07";
    const TIME: i64 = 1_700_000_000;

    fn check(header: &str) -> Result<(), SignatureError> {
        verify(header, BODY.as_bytes(), [SECRET].into_iter(), TIME)
    }

    fn golden() -> String {
        format!("t={TIME},v1={SIGNATURE}")
    }

    #[test]
    fn the_golden_vector_is_accepted() {
        assert_eq!(signature(SECRET, "1700000000", BODY.as_bytes()), SIGNATURE);
        assert_eq!(check(&golden()), Ok(()));
    }

    #[test]
    fn one_signature_by_one_secret_is_enough() {
        let other = "0".repeat(64);
        for header in [
            format!("v1={SIGNATURE},t={TIME}"),
            format!("t={TIME},v1={other},v1={SIGNATURE}"),
            format!("t={TIME},v1={SIGNATURE},v1={other},v0={other}"),
            format!("t={TIME},v2=,=,v1={SIGNATURE},=x,T=1"),
        ] {
            assert_eq!(check(&header), Ok(()), "{header}");
        }
        let by = |secrets: &[&str]| verify(&golden(), BODY.as_bytes(), secrets.iter().copied(), TIME);
        assert_eq!(by(&["whsec_new", SECRET]), Ok(()));
        assert_eq!(by(&[SECRET, "whsec_new"]), Ok(()));
        assert_eq!(by(&["whsec_new"]), Err(Mismatch));
        assert_eq!(by(&[&SECRET["whsec_".len()..]]), Err(Mismatch), "the prefix is part of the key");
        assert_eq!(by(&[]), Err(Mismatch));
    }

    #[test]
    fn a_blank_secret_signs_nothing() {
        for secret in ["", " ", "\t\n"] {
            let header = format!("t={TIME},v1={}", signature(secret, "1700000000", BODY.as_bytes()));
            assert_eq!(verify(&header, BODY.as_bytes(), [secret].into_iter(), TIME), Err(Mismatch));
        }
    }

    #[test]
    fn the_time_is_one_whole_number_around_now() {
        let at = |now| verify(&golden(), BODY.as_bytes(), [SECRET].into_iter(), now);
        assert_eq!([at(TIME - 300), at(TIME + 300)], [Ok(()); 2]);
        assert_eq!([at(TIME - 301), at(TIME + 301)], [Err(OutOfTime); 2]);
        assert_eq!([at(i64::MIN), at(i64::MAX)], [Err(OutOfTime); 2]);
        // Another time is another text that is signed.
        assert_eq!(check(&format!("t={},v1={SIGNATURE}", TIME + 1)), Err(Mismatch));
        for time in
            ["", "-1", "+1700000000", "1.7e9", " 1700000000", "1700000000 ", "0x1", "99999999999999999999"]
        {
            assert_eq!(check(&format!("t={time},v1={SIGNATURE}")), Err(Malformed), "{time:?}");
        }
        assert_eq!(check(&format!("v1={SIGNATURE}")), Err(Malformed), "no time");
        assert_eq!(check(&format!("t={TIME},t={TIME},v1={SIGNATURE}")), Err(Malformed), "two times");
    }

    #[test]
    fn other_schemes_and_spellings_do_not_count() {
        for (header, error) in [
            ("".to_owned(), Malformed),
            ("t".to_owned(), Malformed),
            (format!("{},", golden()), Malformed),
            (format!("t={TIME}"), Mismatch),
            (format!("t={TIME},v1="), Mismatch),
            (format!("t={TIME},v0={SIGNATURE}"), Mismatch),
            (format!("t={TIME},V1={SIGNATURE}"), Mismatch),
            (format!("t={TIME}, v1={SIGNATURE}"), Mismatch),
            (format!("t={TIME},v1={}", SIGNATURE.to_uppercase()), Mismatch),
            (format!("t={TIME},v1={}", &SIGNATURE[..62]), Mismatch),
            (format!("t={TIME},v1={SIGNATURE}00"), Mismatch),
        ] {
            assert_eq!(check(&header), Err(error), "{header}");
        }
    }

    #[test]
    fn a_header_is_bounded() {
        let parts = |count: usize| golden() + &",v0=".repeat(count - 2);
        assert_eq!(check(&parts(HEADER_PARTS_MAX)), Ok(()));
        assert_eq!(check(&parts(HEADER_PARTS_MAX + 1)), Err(TooLong));
        let bytes = |count: usize| format!("{},v0={}", golden(), "0".repeat(count - golden().len() - 4));
        assert_eq!(check(&bytes(HEADER_BYTES_MAX)), Ok(()));
        assert_eq!(check(&bytes(HEADER_BYTES_MAX + 1)), Err(TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(
            header in prop_oneof![".*", "(t=[0-9]{0,20}|v1=[0-9a-f]{0,70}|v0=.?|.?)(,(t=[0-9]{0,11}|v1=[0-9a-f]{64}|=|)){0,20}"],
            body in any::<Vec<u8>>(),
            now in any::<i64>(),
        ) {
            prop_assert!(verify(&header, &body, [SECRET].into_iter(), now).is_err());
        }

        #[test]
        fn no_bit_of_body_or_signature_may_flip(
            mut body in proptest::collection::vec(any::<u8>(), 1..200),
            at in any::<proptest::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut hex = signature(SECRET, "1700000000", &body).into_bytes();
            let check = |hex: &[u8], body: &[u8]| {
                let header = format!("t={TIME},v1={}", String::from_utf8_lossy(hex));
                verify(&header, body, [SECRET].into_iter(), TIME)
            };
            prop_assert_eq!(check(&hex, &body), Ok(()));
            let place = at.index(hex.len());
            hex[place] ^= 1 << bit;
            prop_assert!(check(&hex, &body).is_err());
            hex[place] ^= 1 << bit;
            let place = at.index(body.len());
            body[place] ^= 1 << bit;
            prop_assert_eq!(check(&hex, &body), Err(Mismatch));
        }
    }
}
