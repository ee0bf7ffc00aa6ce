//! Which client a request came from, when proxies stand in between.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use hyper::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Most proxies that are looked back through; a header that names more was made up.
const MOST_HOPS: usize = 32;

/// Most entries of the setting.
const MOST_PROXIES: usize = 256;

/// The proxies whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    /// Whoever connects to a Unix socket of the node.
    unix: bool,
}

/// A range of addresses: those whose first `bits` are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = u32::from(network) ^ u32::from(address);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = u128::from(network) ^ u128::from(address);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| ())?.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| ())?,
            Some(_) => return Err(()),
        };
        if bits <= most { Ok(Network { address, bits }) } else { Err(()) }
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut proxies = TrustedProxies::default();
        for word in text.split([' ', ',', '\t', '\n']).filter(|word| !word.is_empty()) {
            if word == "unix" {
                proxies.unix = true;
                continue;
            }
            let shown: String = word.chars().take(64).collect();
            let network = word.parse().map_err(|()| {
                format!("'{}' is not an IP address, a network such as 10.0.0.0/8, or unix", shown.escape_debug())
            })?;
            proxies.networks.push(network);
        }
        match proxies.networks.len() {
            0..=MOST_PROXIES => Ok(proxies),
            count => Err(format!("names {count} networks; allowed are at most {MOST_PROXIES}")),
        }
    }
}

impl TrustedProxies {
    /// The client's address: that of `peer`, or, where that is a trusted proxy, the last one in `X-Forwarded-For` that
    /// is not. `None` when it is not known: `peer` is that of a Unix socket.
    pub fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.map(|address| address.to_canonical());
        if !peer.map_or(self.unix, |address| self.trusts(address)) {
            return peer;
        }
        let mut client = peer;
        // Each proxy appends the address that it was reached from: only what trusted ones appended is true.
        let values = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let hops = values.flat_map(|value| value.split(',')).collect::<Vec<_>>();
        for hop in hops.into_iter().rev().take(MOST_HOPS) {
            let Some(address) = address(hop.trim()) else { break };
            client = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

/// An address as proxies write it, some with the port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    bare.or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: Option<&str>, forwarded: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let peer = peer.map(|peer| peer.parse().unwrap());
        trusted.parse::<TrustedProxies>().unwrap().client(peer, &headers).map(|address| address.to_string())
    }

    #[test]
    fn what_a_stranger_claims_is_not_believed() {
        assert_eq!(client("", Some("9.9.9.9"), &["1.1.1.1"]).unwrap(), "9.9.9.9");
        assert_eq!(client("10.0.0.0/8", Some("9.9.9.9"), &["1.1.1.1"]).unwrap(), "9.9.9.9");
        assert_eq!(client("10.0.0.0/8", None, &["1.1.1.1"]), None);
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        let trusted = "10.0.0.0/8 fd00::/8";
        for (forwarded, found) in [
            (&["1.1.1.1"][..], "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1, 10.1.1.1"], "1.1.1.1"),
            (&["6.6.6.6", "1.1.1.1:4711", "[fd00::1]:80"], "1.1.1.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["::ffff:1.1.1.1"], "1.1.1.1"),
            (&["10.2.2.2"], "10.2.2.2"),
            (&["1.1.1.1, nonsense"], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client(trusted, Some("::ffff:10.0.0.1"), forwarded).unwrap(), found, "{forwarded:?}");
        }
        assert_eq!(client("unix", None, &["1.1.1.1"]).unwrap(), "1.1.1.1");
    }

    #[test]
    fn a_network_is_an_address_with_a_number_of_bits() {
        for text in ["10.0.0.1", "10.0.0.0/8", "::1", "fd00::/8,10.0.0.1", "unix", "0.0.0.0/0", ""] {
            assert!(text.parse::<TrustedProxies>().is_ok(), "{text}");
        }
        for text in ["localhost", "10.0.0.0/33", "::1/129", "10.0.0.0/+8", "10.0.0/8", "10.0.0.0/"] {
            assert!(text.parse::<TrustedProxies>().is_err(), "{text}");
        }
    }
}
