//! Secrets at rest. In: a secret as text and what it belongs to. Out: bytes that only the service's secret key opens, and
//! only as the secret of the same owner: one that was moved to another tenant, purpose or name is refused.
//!
//! | bytes of a sealed secret | |
//! |---|---|
//! | 1 | version: 1 |
//! | 8 | which key: the first bytes of a hash of it, so that a start with another one can say so |
//! | 24 | nonce: random, long enough for that |
//! | rest | XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha): ciphertext, and 16 bytes of tag |
//!
//! Associated data: version and key id, then business, purpose and name, each with its length before it. What this does not
//! do: keep secrets (the registry does), or change the key of those that are kept.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use dataflows::types::Sealed;
use thiserror::Error;

const VERSION: u8 = 1;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
const HEAD_BYTES: usize = 1 + ID_BYTES;

/// Which key sealed a secret.
pub type KeyId = [u8; ID_BYTES];

/// A secret that somebody may read. No message shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Plaintext(pub String);

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a secret)")
    }
}

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Calls to Stripe.
    StripeSecretKey,
    /// Webhooks of Stripe.
    StripeWebhookSecret,
    /// The tenant's own webhook.
    WebhookSecret,
}

impl Purpose {
    /// Never changes: what is sealed depends on it.
    fn text(self) -> &'static str {
        match self {
            Purpose::StripeSecretKey => "stripe.secret_key",
            Purpose::StripeWebhookSecret => "stripe.webhook_secret",
            Purpose::WebhookSecret => "webhook.secret",
        }
    }
}

/// What a secret belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The tenant.
    pub business_id: &'a str,
    /// What for.
    pub purpose: Purpose,
    /// Which of several; empty where there is one.
    pub name: &'a str,
}

/// Why a secret was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The service has no secret key.
    #[error(
        "the service has no key to encrypt secrets with: start it with TRACKTAGS_SECRET_KEY (or --secret-key) set to \
         32 random bytes as 64 hexadecimal digits, as `openssl rand -hex 32` prints them"
    )]
    NoKey,
    /// The machine gives no randomness.
    #[error("the machine gives no randomness")]
    NoRandomness,
}

/// Why a secret was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The service has no secret key.
    #[error("the service has no key to decrypt secrets with")]
    NoKey,
    /// It was sealed with another key.
    #[error("the secret was encrypted with another key")]
    OtherKey,
    /// It is of another version, of another owner, or not as it was sealed.
    #[error("the secret is damaged or was sealed for something else")]
    Refused,
}

/// Seals and opens. Without a key it does neither, and the service runs.
pub struct Vault(Option<Key>);

struct Key {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

impl Vault {
    /// A vault with this key, or without one.
    pub fn new(key: Option<&[u8; 32]>) -> Vault {
        Vault(key.map(|key| {
            let hash = blake3::derive_key("tracktags secret key id", key);
            let mut id = [0; ID_BYTES];
            id.copy_from_slice(&hash[..ID_BYTES]);
            Key { id, cipher: XChaCha20Poly1305::new(key.into()) }
        }))
    }

    /// Encrypts a secret for its owner.
    pub fn seal(&self, owner: &Owner<'_>, secret: &Plaintext) -> Result<Sealed, SealError> {
        let key = self.0.as_ref().ok_or(SealError::NoKey)?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let mut sealed = [&[VERSION][..], &key.id].concat();
        let aad = associated(&sealed, owner);
        let payload = Payload { msg: secret.0.as_bytes(), aad: &aad };
        let ciphertext = key
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a request's body is far below the cipher's 256 GiB");
        sealed.extend(nonce);
        sealed.extend(ciphertext);
        Ok(Sealed(sealed))
    }

    /// Decrypts a secret of this owner.
    pub fn open(&self, owner: &Owner<'_>, sealed: &Sealed) -> Result<Plaintext, OpenError> {
        let key = self.0.as_ref().ok_or(OpenError::NoKey)?;
        let (head, rest) = sealed.0.split_at_checked(HEAD_BYTES).ok_or(OpenError::Refused)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Refused)?;
        if head[0] != VERSION {
            return Err(OpenError::Refused);
        }
        if head[1..] != key.id {
            return Err(OpenError::OtherKey);
        }
        let payload = Payload { msg: ciphertext, aad: &associated(head, owner) };
        let secret = key.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| OpenError::Refused)?;
        String::from_utf8(secret).map(Plaintext).map_err(|_| OpenError::Refused)
    }

    /// Whether this vault's key sealed it.
    pub fn has_sealed(&self, sealed: &Sealed) -> bool {
        let id = sealed.0.get(1..HEAD_BYTES);
        self.0.as_ref().is_some_and(|key| id == Some(&key.id[..]))
    }

    /// Whether there is a key at all.
    pub fn has_key(&self) -> bool {
        self.0.is_some()
    }
}

fn associated(head: &[u8], owner: &Owner<'_>) -> Vec<u8> {
    let mut bytes = head.to_vec();
    for part in [owner.business_id, owner.purpose.text(), owner.name] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: Owner<'static> =
        Owner { business_id: "biz_1", purpose: Purpose::StripeSecretKey, name: "live" };

    fn vault(byte: u8) -> Vault {
        Vault::new(Some(&[byte; 32]))
    }

    fn secret(text: &str) -> Plaintext {
        Plaintext(text.to_owned())
    }

    /// Sealed by libsodium for `OWNER` under 32 bytes of 7, with the nonce 00, 01, 02...: what is in journals stays readable.
    #[test]
    fn a_secret_of_version_1_is_read() {
        let hex = "0176516d5cde089f10000102030405060708090a0b0c0d0e0f1011121314151617db7cf4e9936a3efa42a8ed23\
                   838c38171bc08c270b77aba2d7028ab58e9f";
        let digit = |byte: &u8| char::from(*byte).to_digit(16).expect("hexadecimal") as u8;
        let bytes = hex.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect();
        assert_eq!(vault(7).open(&OWNER, &Sealed(bytes)), Ok(secret("sk_live_golden")));
    }

    #[test]
    fn a_secret_opens_for_its_owner_alone() {
        let sealed = vault(7).seal(&OWNER, &secret("sk_live_1")).expect("sealed");
        assert_eq!(vault(7).open(&OWNER, &sealed), Ok(secret("sk_live_1")));
        for other in [
            Owner { business_id: "biz_2", ..OWNER },
            Owner { purpose: Purpose::StripeWebhookSecret, ..OWNER },
            Owner { name: "test", ..OWNER },
            // The same letters, cut elsewhere.
            Owner { business_id: "biz_1l", name: "ive", ..OWNER },
            Owner { name: "", ..OWNER },
        ] {
            assert_eq!(vault(7).open(&other, &sealed), Err(OpenError::Refused), "{other:?}");
        }
    }

    #[test]
    fn another_key_or_none_says_so() {
        let sealed = vault(7).seal(&OWNER, &secret("sk_live_1")).expect("sealed");
        assert_eq!(vault(8).open(&OWNER, &sealed), Err(OpenError::OtherKey));
        assert_eq!(Vault::new(None).open(&OWNER, &sealed), Err(OpenError::NoKey));
        assert_eq!(Vault::new(None).seal(&OWNER, &secret("sk_live_1")), Err(SealError::NoKey));
        let readable = [vault(7), vault(8), Vault::new(None)].map(|vault| vault.has_sealed(&sealed));
        assert_eq!(readable, [true, false, false]);
    }

    #[test]
    fn the_same_secret_is_sealed_otherwise_each_time_and_shown_by_nothing() {
        let [one, two] = [(), ()].map(|()| vault(7).seal(&OWNER, &secret("sk_live_1")).expect("sealed"));
        assert_ne!(one, two);
        assert_eq!(format!("{one:?} {:?}", secret("sk_live_1")), "Sealed(58 bytes) (a secret)");
    }

    proptest! {
        #[test]
        fn any_text_survives_and_no_changed_byte_is_taken(text in ".{0,60}", at in any::<prop::sample::Index>(), by in 1u8..) {
            let sealed = vault(7).seal(&OWNER, &secret(&text)).expect("sealed");
            prop_assert_eq!(vault(7).open(&OWNER, &sealed), Ok(secret(&text)));
            let mut changed = sealed.clone();
            let at = at.index(changed.0.len());
            changed.0[at] = changed.0[at].wrapping_add(by);
            prop_assert!(vault(7).open(&OWNER, &changed).is_err());
            prop_assert!(vault(7).open(&OWNER, &Sealed(sealed.0[..at].to_vec())).is_err());
        }
    }
}
