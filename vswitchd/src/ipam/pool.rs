//! The addresses of one pod CIDR: which may be given out, and in which order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A pod CIDR with the place of the last allocation.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) net: IpNet,
    first: u128,
    last: u128,
    /// Search goes on behind it, so that a released address is the last to be used again.
    pub(super) cursor: Option<IpAddr>,
}

impl Pool {
    /// Makes a pool of a CIDR; the problem as text if it has no room for pods.
    pub(super) fn new(net: IpNet) -> Result<Self, &'static str> {
        let net = net.trunc();
        let address = net.network();
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err("is not a range for pods");
        }
        // IPv4 needs network, gateway and broadcast address besides one pod; IPv6 the
        // subnet-router anycast address (RFC 4291 §2.6.1) and the gateway.
        let longest = if is_v4(address) { 30 } else { 126 };
        if net.prefix_len() > longest {
            return Err("has no room for pods");
        }
        let last = number(net.broadcast()) - u128::from(is_v4(address));
        Ok(Self {
            net,
            first: number(address) + 2,
            last,
            cursor: None,
        })
    }

    pub(super) fn is_v4(&self) -> bool {
        is_v4(self.net.network())
    }

    /// The first host address: the switch's own on this subnet.
    pub(super) fn gateway(&self) -> IpAddr {
        self.address(self.first - 1)
    }

    /// Number of addresses for pods.
    pub(super) fn capacity(&self) -> u128 {
        self.last - self.first + 1
    }

    /// Whether the address is one for pods.
    pub(super) fn offers(&self, address: IpAddr) -> bool {
        is_v4(address) == self.is_v4() && (self.first..=self.last).contains(&number(address))
    }

    /// First and last address for pods.
    pub(super) fn bounds(&self) -> (IpAddr, IpAddr) {
        (self.address(self.first), self.address(self.last))
    }

    /// All addresses once, from behind the cursor around to it.
    pub(super) fn candidates(&self) -> impl Iterator<Item = IpAddr> {
        let start = match self.cursor {
            Some(cursor) if self.offers(cursor) && number(cursor) < self.last => number(cursor) + 1,
            _ => self.first,
        };
        (start..=self.last)
            .chain(self.first..start)
            .map(|number| self.address(number))
    }

    /// The address with the prefix length of the subnet.
    pub(super) fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.net.prefix_len()).unwrap_or_else(|_| IpNet::from(address))
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.is_v4() {
            u32::try_from(number).map_or(IpAddr::V4(Ipv4Addr::BROADCAST), |n| IpAddr::V4(n.into()))
        } else {
            IpAddr::V6(Ipv6Addr::from(number))
        }
    }
}

pub(super) const fn is_v4(address: IpAddr) -> bool {
    address.is_ipv4()
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}
