//! Keys: 256 random bits behind a prefix. Only their BLAKE3 hash is kept: high entropy needs a fast hash, not a slow one.

use std::fmt::Write;

/// How keys that act for a business begin.
pub const BUSINESS_PREFIX: &str = "tk_live_";
/// How keys that act for one customer begin.
pub const CUSTOMER_PREFIX: &str = "tk_cust_";

/// A new `business_id`: 64 random bits, which is no secret. An error if the machine has no randomness.
pub fn new_business_id() -> std::io::Result<String> {
    let random = getrandom::u64().map_err(std::io::Error::other)?;
    Ok(format!("biz_{random:016x}"))
}

/// A new key: the prefix and 64 hexadecimal digits. An error if the machine has no randomness.
pub fn new_key(prefix: &str) -> std::io::Result<String> {
    let mut random = [0u8; 32];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let mut key = prefix.to_owned();
    for byte in random {
        write!(key, "{byte:02x}").expect("writing to a string cannot fail");
    }
    Ok(key)
}

/// What is kept of a key.
pub fn hash_key(key: &str) -> [u8; 32] {
    *blake3::hash(key.as_bytes()).as_bytes()
}
