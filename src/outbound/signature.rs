//! Signatures of our webhooks, by Standard Webhooks (<https://www.standardwebhooks.com>). In: keys, a message's id, the time and
//! its body. Out: the three headers that a receiver verifies.
//!
//! ```text
//! webhook-id: {id}
//! webhook-timestamp: {unix seconds}
//! webhook-signature: v1,{base64(HMAC-SHA256(key, "{id}.{timestamp}.{body}"))} v1,...      one a key: an old one signs along
//! ```
//! A secret is written as `whsec_` and the key in base64. What this does not do: verify; send; choose ids.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

const PREFIX: &str = "whsec_";
/// Bytes of a key, by the specification.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Text that is no secret of Standard Webhooks. It does not say what the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a secret for signatures is whsec_ and 24 to 64 bytes in base64")]
pub struct SecretError;

/// What messages are signed with. No message shows it.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// The key of a secret, `whsec_...`.
    pub fn parse(secret: &str) -> Result<SigningKey, SecretError> {
        let key = secret.strip_prefix(PREFIX).and_then(|text| BASE64.decode(text).ok()).ok_or(SecretError)?;
        if !KEY_BYTES.contains(&key.len()) {
            return Err(SecretError);
        }
        Hmac::new_from_slice(&key).map(SigningKey).map_err(|_| SecretError)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a secret)")
    }
}

/// The headers of a message: its id, when it is sent in unix seconds, and a signature by each of the keys, in their order.
///
/// # Panics
/// If the id has a full stop, by which what is signed could be read in two ways, or is not of printable ASCII.
pub fn sign(keys: &[SigningKey], id: &str, sent_at_secs: i64, body: &[u8]) -> [(&'static str, String); 3] {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
    assert!(is_plain, "an id of a webhook is of printable ASCII without a full stop");
    let sent_at = sent_at_secs.to_string();
    let signature = |SigningKey(keyed): &SigningKey| {
        let parts = [id.as_bytes(), b".", sent_at.as_bytes(), b".", body];
        let signed = parts.iter().fold(keyed.clone(), |keyed, part| keyed.chain_update(part));
        format!("v1,{}", BASE64.encode(signed.finalize().into_bytes()))
    };
    let signatures: Vec<_> = keys.iter().map(signature).collect();
    [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", sent_at),
        ("webhook-signature", signatures.join(" ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SECOND: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn key(secret: &str) -> SigningKey {
        SigningKey::parse(secret).expect("a secret")
    }

    /// The signatures are what PyPI's `standardwebhooks` 1.1.0 made of the same input, once: `Webhook(secret).sign(id, time,
    /// body)`. It is not installed to run this test.
    #[test]
    fn signatures_are_those_of_the_reference_library() {
        let published =
            sign(&[key(FIRST)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(published[0], ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned()));
        assert_eq!(published[1], ("webhook-timestamp", "1614265330".to_owned()));
        assert_eq!(
            published[2],
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned())
        );
        let body = r#"{"type":"limit.breached","data":"Zürich"}"#;
        let rotated = sign(&[key(SECOND), key(FIRST)], "msg_1", 1_790_000_000, body.as_bytes());
        let both = "v1,D5zXW8gN3VsxsFoRA1/f/ozNtshSigjJpJEaTqIHCTA= \
                    v1,d67dNvqTos9/HA+BzJhm6FrjbuFqXVj88ngPMBLpWg0=";
        assert_eq!(rotated[2].1, both);
    }

    #[test]
    fn a_secret_is_whole_and_never_shown() {
        assert_eq!(format!("{:?}", key(SECOND)), "(a secret)");
        let long = format!("whsec_{}", BASE64.encode([7; 65]));
        for secret in
            ["", "whsec_", &SECOND[6..], "whsec_AAEC", "whsec_????", &SECOND[..SECOND.len() - 1], &long]
        {
            assert_eq!(SigningKey::parse(secret).map(drop), Err(SecretError), "{secret}");
        }
    }

    #[test]
    #[should_panic(expected = "without a full stop")]
    fn an_id_has_no_full_stop() {
        sign(&[key(FIRST)], "a.1", 1, b"");
    }
}
