//! Which addresses may be connected to. In: an address that a name resolved to, or that stands in a URL, and a port. Out: a
//! `Checked` address, the only thing that the connector connects to, or a `Refusal`.
//!
//! Everything is refused that is not on the public internet, and every port but 80 and 443, unless the address lies in a
//! network that the operator has allowed: there any port will do. IPv4 is judged by a table of what is not public (IANA's
//! registry of special-purpose addresses, RFC 6890, and one address of a cloud). IPv6 the other way round: only global unicast,
//! `2000::/3`, less a table. An IPv4-mapped address (`::ffff:a.b.c.d`) *is* its IPv4 address. One of NAT64 (`64:ff9b::/96`,
//! RFC 6052) is judged by the IPv4 address in it; all other addresses that carry one (6to4, Teredo, IPv4-compatible and
//! -translated, local NAT64) are refused.
//!
//! What this does not do: resolve names; know which public addresses are this machine's own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Ports that are open without a network being allowed.
const WEB_PORTS: [u16; 2] = [80, 443];

/// All of IPv6 that is given out for use on the internet.
const GLOBAL_UNICAST: Cidr = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// Translated by a NAT64 to the IPv4 address in its last 32 bits.
const NAT64: Cidr = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// What of IPv4 is not public, and what of `GLOBAL_UNICAST`.
const REFUSED: &[(Cidr, &str)] = &[
    (v4([0, 0, 0, 0], 8), "this network, unspecified"),
    (v4([10, 0, 0, 0], 8), "private"),
    (v4([100, 64, 0, 0], 10), "shared by carriers (CGNAT)"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([168, 63, 129, 16], 32), "a cloud's own services"),
    (v4([169, 254, 0, 0], 16), "link-local, metadata of clouds"),
    (v4([172, 16, 0, 0], 12), "private"),
    (v4([192, 0, 0, 0], 24), "IETF protocols"),
    (v4([192, 0, 2, 0], 24), "documentation"),
    (v4([192, 88, 99, 0], 24), "6to4 relays"),
    (v4([192, 168, 0, 0], 16), "private"),
    (v4([198, 18, 0, 0], 15), "benchmarking"),
    (v4([198, 51, 100, 0], 24), "documentation"),
    (v4([203, 0, 113, 0], 24), "documentation"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([240, 0, 0, 0], 4), "reserved, broadcast"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "IETF protocols, Teredo, benchmarking"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "6to4"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
];

/// A network: all addresses of one family that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix_bits: u8,
}

const fn v4(octets: [u8; 4], prefix_bits: u8) -> Cidr {
    let [a, b, c, d] = octets;
    Cidr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix_bits)
}

const fn v6(words: [u16; 8], prefix_bits: u8) -> Cidr {
    let [a, b, c, d, e, f, g, h] = words;
    Cidr::new(IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix_bits)
}

impl Cidr {
    /// The network of the first `prefix_bits` of `address`; the other bits do not matter.
    ///
    /// # Panics
    /// If the family has fewer bits, 32 or 128. `config::Network` has them checked.
    pub const fn new(address: IpAddr, prefix_bits: u8) -> Cidr {
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        assert!(prefix_bits <= bits_max, "the prefix of a network is longer than its address");
        Cidr { address, prefix_bits }
    }

    /// Whether the address lies in the network. An address of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.prefix_bits);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(32 - bits).is_none_or(|differing| differing == 0)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(128 - bits).is_none_or(|differing| differing == 0)
            }
            _ => false,
        }
    }
}

/// An address that the guard has let through. Only it makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked(SocketAddr);

impl Checked {
    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.0
    }
}

/// Why an address was refused. For the log alone: callers must not learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    address: IpAddr,
    port: u16,
    why: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", SocketAddr::new(self.address, self.port), self.why)
    }
}

/// The rules of one service.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow: Vec<Cidr>,
}

impl Guard {
    /// A guard that lets through what is public, and what lies in one of `allow`.
    pub fn new(allow: Vec<Cidr>) -> Guard {
        Guard { allow }
    }

    /// Checks one address and port.
    pub fn check(&self, address: IpAddr, port: u16) -> Result<Checked, Refusal> {
        let address = address.to_canonical();
        if self.allow.iter().any(|network| network.contains(address)) {
            return Ok(Checked(SocketAddr::new(address, port)));
        }
        match not_public(address) {
            Some(why) => Err(Refusal { address, port, why }),
            None if !WEB_PORTS.contains(&port) => {
                Err(Refusal { address, port, why: "not a port of the web" })
            }
            None => Ok(Checked(SocketAddr::new(address, port))),
        }
    }

    /// Checks everything that a name resolved to. One refused address refuses all: a name that leads both outside and inside
    /// is no mishap that one should help along.
    pub fn check_all(&self, addresses: &[IpAddr], port: u16) -> Result<Vec<Checked>, Refusal> {
        addresses.iter().map(|address| self.check(*address, port)).collect()
    }
}

/// Why an address is not on the public internet, if it is not. It is canonical: never an IPv4-mapped one.
fn not_public(address: IpAddr) -> Option<&'static str> {
    if let IpAddr::V6(address) = address {
        if NAT64.contains(address.into()) {
            let embedded = Ipv4Addr::from_bits(address.to_bits() as u32);
            return not_public(embedded.into());
        }
        if !GLOBAL_UNICAST.contains(address.into()) {
            return Some("not global unicast");
        }
    }
    REFUSED.iter().find(|(network, _)| network.contains(address)).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
    }

    fn cidr(text: &str) -> Cidr {
        let (base, bits) = text.split_once('/').expect("a network");
        Cidr::new(address(base), bits.parse().expect("a number"))
    }

    fn refused(guard: &Guard, text: &str, port: u16) -> bool {
        guard.check(address(text), port).is_err()
    }

    /// An address beside a range, and whether it is refused, too.
    type Neighbour = Option<(&'static str, bool)>;

    /// First and last address of what is refused, and the neighbours on both sides.
    const RANGES: &[(&str, &str, Neighbour, Neighbour)] = &[
        ("0.0.0.0", "0.255.255.255", None, Some(("1.0.0.0", false))),
        ("10.0.0.0", "10.255.255.255", Some(("9.255.255.255", false)), Some(("11.0.0.0", false))),
        ("100.64.0.0", "100.127.255.255", Some(("100.63.255.255", false)), Some(("100.128.0.0", false))),
        ("127.0.0.0", "127.255.255.255", Some(("126.255.255.255", false)), Some(("128.0.0.0", false))),
        ("168.63.129.16", "168.63.129.16", Some(("168.63.129.15", false)), Some(("168.63.129.17", false))),
        ("169.254.0.0", "169.254.255.255", Some(("169.253.255.255", false)), Some(("169.255.0.0", false))),
        ("172.16.0.0", "172.31.255.255", Some(("172.15.255.255", false)), Some(("172.32.0.0", false))),
        ("192.0.0.0", "192.0.0.255", Some(("191.255.255.255", false)), Some(("192.0.1.0", false))),
        ("192.0.2.0", "192.0.2.255", Some(("192.0.1.255", false)), Some(("192.0.3.0", false))),
        ("192.88.99.0", "192.88.99.255", Some(("192.88.98.255", false)), Some(("192.88.100.0", false))),
        ("192.168.0.0", "192.168.255.255", Some(("192.167.255.255", false)), Some(("192.169.0.0", false))),
        ("198.18.0.0", "198.19.255.255", Some(("198.17.255.255", false)), Some(("198.20.0.0", false))),
        ("198.51.100.0", "198.51.100.255", Some(("198.51.99.255", false)), Some(("198.51.101.0", false))),
        ("203.0.113.0", "203.0.113.255", Some(("203.0.112.255", false)), Some(("203.0.114.0", false))),
        ("224.0.0.0", "239.255.255.255", Some(("223.255.255.255", false)), Some(("240.0.0.0", true))),
        ("240.0.0.0", "255.255.255.255", Some(("239.255.255.255", true)), None),
        // Everything below global unicast but NAT64: unspecified, loopback, IPv4-compatible, -translated, discard, ...
        ("::", "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
        ("64:ff9b::1:0:0", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, Some(("2000::", false))),
        (
            "2001::",
            "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
            Some(("2000:ffff::", false)),
            Some(("2001:200::", false)),
        ),
        (
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            Some(("2001:db7:ffff::", false)),
            Some(("2001:db9::", false)),
        ),
        (
            "2002::",
            "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Some(("2001:ffff::", false)),
            Some(("2003::", false)),
        ),
        (
            "3fff::",
            "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            Some(("3ffe:ffff::", false)),
            Some(("3fff:1000::", false)),
        ),
        ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(("3fff:ffff::", false)), None),
    ];

    #[test]
    fn ranges_are_refused_from_their_first_to_their_last_address() {
        let guard = Guard::default();
        for (first, last, below, above) in RANGES {
            for text in [first, last] {
                assert!(refused(&guard, text, 443) && refused(&guard, text, 80), "{text}");
            }
            for (text, also) in [below, above].into_iter().flatten() {
                assert_eq!(refused(&guard, text, 443), *also, "{text}");
            }
        }
    }

    #[test]
    fn well_known_addresses_are_refused() {
        for text in [
            "::1",
            "::7f00:1",
            "::ffff:0:127.0.0.1",
            "64:ff9b:1::7f00:1",
            "100::1",
            "100:0:0:1::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:20::1",
            "2002:7f00:1::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100.100.100.200",
            "169.254.169.254",
            "192.0.0.192",
        ] {
            assert!(refused(&Guard::default(), text, 80), "{text}");
        }
        for text in ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"] {
            assert!(!refused(&Guard::default(), text, 80), "{text}");
        }
    }

    #[test]
    fn an_ipv4_address_in_an_ipv6_one_is_judged() {
        let guard = Guard::new(vec![cidr("10.0.0.0/8")]);
        for (text, is_refused) in [
            ("::ffff:1.1.1.1", false),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("::ffff:10.0.0.1", false),
            ("64:ff9b::1.1.1.1", false),
            ("64:ff9b::127.0.0.1", true),
            ("64:ff9b::a9fe:a9fe", true),
            // A translator is elsewhere: its 10.0.0.1 is not the operator's.
            ("64:ff9b::10.0.0.1", true),
        ] {
            assert_eq!(refused(&guard, text, 80), is_refused, "{text}");
        }
        let checked = guard.check(address("::ffff:10.0.0.1"), 8080).expect("allowed");
        assert_eq!(checked.address(), "10.0.0.1:8080".parse().expect("an address"));
    }

    #[test]
    fn other_ports_are_for_allowed_networks() {
        let guard = Guard::new(vec![cidr("10.1.0.0/16"), cidr("fd00:1::/32"), cidr("1.1.1.1/32")]);
        for (text, port, is_refused) in [
            ("8.8.8.8", 80, false),
            ("8.8.8.8", 443, false),
            ("8.8.8.8", 0, true),
            ("8.8.8.8", 22, true),
            ("8.8.8.8", 8443, true),
            ("2606:4700:4700::1111", 5432, true),
            ("1.1.1.1", 853, false),
            ("1.1.1.2", 853, true),
            ("10.1.255.255", 5432, false),
            ("10.2.0.0", 443, true),
            ("fd00:1:ffff::1", 6379, false),
            ("fd00:2::1", 443, true),
        ] {
            assert_eq!(refused(&guard, text, port), is_refused, "{text} {port}");
        }
    }

    #[test]
    fn one_refused_address_refuses_the_name() {
        let guard = Guard::default();
        let all = |texts: &[&str]| {
            guard.check_all(&texts.iter().map(|text| address(text)).collect::<Vec<_>>(), 443)
        };
        assert_eq!(all(&["1.1.1.1", "2606:4700:4700::1111"]).map(|checked| checked.len()), Ok(2));
        assert!(all(&["1.1.1.1", "127.0.0.1"]).is_err());
        assert!(all(&["::1", "1.1.1.1"]).is_err());
    }

    #[test]
    fn a_network_holds_what_begins_as_it_does() {
        for (network, inside, outside) in [
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "ffff::", "1.1.1.1"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.9.9.9/8", "10.0.0.0", "9.255.255.255"),
            ("10.0.0.2/31", "10.0.0.3", "10.0.0.4"),
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.0"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("fd00::/127", "fd00::1", "fd00::2"),
            ("::1/128", "::1", "::"),
        ] {
            assert!(cidr(network).contains(address(inside)), "{network} {inside}");
            assert!(!cidr(network).contains(address(outside)), "{network} {outside}");
        }
    }
}
