//! Kinds of values of options, and how they are written. A secret has no text of its own: what shows it says that it is one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Bytes of a mebibyte.
pub(super) const MIB: u64 = 1 << 20;

/// A number of bytes: digits with an optional `KiB`, `MiB`, `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Bytes(pub u64);

/// A duration in humantime's notation: `30s`, `5m`, `72h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

/// A network: an address whose bits behind the first `prefix_bits` are zero, or a single address. Never an IPv4-mapped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
#[allow(missing_docs)] // See the type.
pub struct Network {
    pub address: IpAddr,
    pub prefix_bits: u8,
}

/// A secret that no message shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(pub String);

/// What secrets are encrypted with. No message shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(pub [u8; 32]);

/// When an update counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After fsync: it survives a power cut.
    Fsync,
    /// After the write: it survives a crash of the process, not a power cut.
    Os,
}

/// What happens to usage of a billing period whose invoice is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// It is billed in the next period.
    NextPeriod,
    /// It is shown and not billed.
    Hold,
}

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => MIB,
            "GiB" => 1 << 30,
            _ => return Err("the units are KiB, MiB and GiB".into()),
        };
        let count = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
        count.map(Bytes).ok_or_else(|| "it must be a number of bytes, such as 64MiB".into())
    }
}

impl TryFrom<String> for Bytes {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Period {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Period)
            .map_err(|_| "it must be a duration, such as 30s, 5m or 72h".into())
    }
}

impl TryFrom<String> for Period {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let rule = "it must be a network or an address, such as 10.0.0.0/8, fd00::/8 or 10.1.2.3";
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(first, rest)| (first, Some(rest)));
        let address: IpAddr = address.parse().map_err(|_| rule.to_owned())?;
        if address.to_canonical() != address {
            return Err(format!("{address} is an IPv4 address: write {}", address.to_canonical()));
        }
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits_max,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|bits| *bits <= bits_max)
                .ok_or_else(|| format!("the number behind / must be from 0 to {bits_max}"))?,
            Some(_) => return Err(rule.to_owned()),
        };
        let base = base(address, prefix_bits);
        if base != address {
            return Err(format!("{text} begins in the middle of a network: write {base}/{prefix_bits}"));
        }
        Ok(Network { address, prefix_bits })
    }
}

/// The first address of a network.
fn base(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Durability {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "fsync" => Ok(Durability::Fsync),
            "os" => Ok(Durability::Os),
            _ => Err("it must be fsync or os"),
        }
    }
}

impl FromStr for Late {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "next_period" => Ok(Late::NextPeriod),
            "hold" => Ok(Late::Hold),
            _ => Err("it must be next_period or hold"),
        }
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a secret)")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_by_its_first_address() {
        for (text, address, prefix_bits) in [
            ("10.0.0.0/8", "10.0.0.0", 8),
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("10.1.2.3", "10.1.2.3", 32),
            ("10.1.2.2/31", "10.1.2.2", 31),
            ("fd00::/8", "fd00::", 8),
            ("::/0", "::", 0),
            ("fd00::1", "fd00::1", 128),
        ] {
            let network = Network { address: address.parse().expect("an address"), prefix_bits };
            assert_eq!(text.parse(), Ok(network), "{text}");
        }
        for (text, part) in [
            ("", "such as 10.0.0.0/8"),
            ("ten", "such as 10.0.0.0/8"),
            ("10.0.0/8", "such as 10.0.0.0/8"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/a", "such as 10.0.0.0/8"),
            ("10.0.0.0/+8", "such as 10.0.0.0/8"),
            ("10.0.0.0/33", "0 to 32"),
            ("fd00::/129", "0 to 128"),
            ("fd00::/999", "0 to 128"),
            ("10.1.2.3/8", "write 10.0.0.0/8"),
            ("fd00::1/64", "write fd00::/64"),
            ("::ffff:10.0.0.0/104", "write 10.0.0.0"),
        ] {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
