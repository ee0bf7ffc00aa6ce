//! What one client may take: new connections, connections at a time, publishes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::HeaderMap;
use parking_lot::Mutex;

use super::proxies::TrustedProxies;
use super::rates::{Rates, TooFast, client_of};
use super::{Grant, Holder};
use crate::model::StreamName;

/// What is allowed; what is `None` is not limited.
#[derive(Debug, Clone, Default)]
pub struct ThrottleSettings {
    /// Whose word on a client's address is believed.
    pub proxies: TrustedProxies,
    /// New listeners of one address a second.
    pub connects: Option<u32>,
    /// Listeners of one address at a time.
    pub connections: Option<usize>,
    /// Events that one device may publish a second.
    pub publishes: Option<u32>,
}

/// What clients have taken on this node.
#[derive(Default)]
pub struct Throttle {
    settings: ThrottleSettings,
    connects: Rates<IpAddr>,
    devices: Rates<StreamName>,
    keys: Rates<Box<str>>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One of the connections that an address may have, until it is dropped.
#[derive(Debug)]
pub struct AddressPermit {
    address: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// An address has as many connections as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Throttle {
    /// Nobody has taken anything.
    pub fn new(settings: ThrottleSettings) -> Self {
        Throttle { settings, ..Throttle::default() }
    }

    /// Whether new listeners are limited.
    pub fn limits_connects(&self) -> bool {
        self.settings.connects.is_some()
    }

    /// The client's address, which a trusted proxy may pass on. `None` where it is not known.
    pub fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        self.settings.proxies.client(peer, headers)
    }

    /// Whether one more listener of this address may come now.
    pub fn connect(&self, client: Option<IpAddr>) -> Result<(), TooFast> {
        match (self.settings.connects, client) {
            (Some(rate), Some(client)) => self.connects.take(client_of(client), 1, rate),
            _ => Ok(()),
        }
    }

    /// A place among the connections of this address, if they are limited.
    pub fn hold(&self, client: Option<IpAddr>) -> Result<Option<AddressPermit>, TooMany> {
        let (Some(most), Some(client)) = (self.settings.connections, client) else { return Ok(None) };
        let address = client_of(client);
        let mut open = self.open.lock();
        let count = open.entry(address).or_default();
        if *count >= most {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(AddressPermit { address, open: self.open.clone() }))
    }

    /// Whether the holder of this grant may publish so many events now. `connected` is the device that it listens as,
    /// which counts where access is open and nobody has to prove who they are.
    pub fn publish(&self, grant: &Grant, connected: Option<&StreamName>, events: usize) -> Result<(), TooFast> {
        let device = match &grant.holder {
            Holder::Key { name, rate: Some(rate) } => return self.keys.take(name.clone(), events, *rate),
            Holder::Key { rate: None, .. } => return Ok(()),
            Holder::Open => connected,
            Holder::Anonymous | Holder::Token { .. } | Holder::Backend => grant.device.as_ref(),
        };
        match (self.settings.publishes, device) {
            (Some(rate), Some(device)) => self.devices.take(device.clone(), events, rate),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_until_one_ends() {
        let throttle = Throttle::new(ThrottleSettings { connections: Some(2), ..Default::default() });
        let (one, other) = (Some([1, 1, 1, 1].into()), Some([2, 2, 2, 2].into()));
        let first = throttle.hold(one).unwrap();
        let _second = throttle.hold(one).unwrap();
        assert_eq!(throttle.hold(one).unwrap_err(), TooMany);
        assert!(throttle.hold(other).unwrap().is_some());
        assert!(throttle.hold(None).unwrap().is_none(), "an address that is not known can't be counted");
        drop(first);
        let _third = throttle.hold(one).unwrap();
        assert_eq!(throttle.open.lock().len(), 1, "addresses without connections are forgotten");
    }

    #[test]
    fn what_is_not_set_is_not_limited() {
        let throttle = Throttle::default();
        let (client, device) = (Some([1, 1, 1, 1].into()), "device:42".parse().unwrap());
        for _ in 0..1000 {
            assert!(throttle.connect(client).is_ok());
            assert!(throttle.publish(&Grant::open(), Some(&device), 1).is_ok());
        }
    }

    #[test]
    fn a_key_has_its_own_rate_and_a_token_that_of_its_device() {
        let throttle = Throttle::new(ThrottleSettings { publishes: Some(2), ..Default::default() });
        let allowed = |grant: &Grant| (0..10).filter(|_| throttle.publish(grant, None, 1).is_ok()).count();
        let key = |name: &str, rate| Grant::nothing(Holder::Key { name: name.into(), rate });
        assert_eq!(allowed(&key("a", Some(5))), 5);
        assert_eq!(allowed(&key("b", Some(1))), 1);
        assert_eq!(allowed(&key("c", None)), 10);
        let token = |device: &str| Grant {
            device: Some(device.parse().unwrap()),
            ..Grant::nothing(Holder::Token { id: None })
        };
        assert_eq!(allowed(&token("device:1")), 2);
        assert_eq!(allowed(&token("device:2")), 2);
        assert_eq!(allowed(&token("device:1")), 0, "it is the same device by whichever token");
    }
}
