//! Errors of leasing and releasing addresses.

use std::net::IpAddr;

use ipnet::IpNet;

use super::owner::LeaseOwner;
use crate::store::StoreError;

/// Why an address could not be given or taken back.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum IpamError {
    /// The configuration cannot work.
    #[error("pod CIDR {cidr} {problem}")]
    Config { cidr: IpNet, problem: &'static str },
    /// All addresses are leased or resting.
    #[error("{}", exhausted_message(*cidr, *leased, *resting, *retry_after_secs))]
    Exhausted {
        cidr: IpNet,
        leased: usize,
        resting: usize,
        retry_after_secs: Option<u64>,
    },
    /// The requested address belongs to no pod CIDR, or twice to the same.
    #[error("requested address {address} {problem}")]
    Unusable {
        address: IpAddr,
        problem: &'static str,
    },
    /// Somebody else has the requested address.
    #[error("requested address {address} is leased to {owner}")]
    InUse { address: IpAddr, owner: LeaseOwner },
    /// The owner has another address already.
    #[error("{owner} holds {held} and requests {address}")]
    Conflict {
        owner: LeaseOwner,
        held: IpAddr,
        address: IpAddr,
    },
    /// The lease could not be read or made durable.
    #[error("keep leases in the store")]
    Store { source: StoreError },
}

fn exhausted_message(cidr: IpNet, leased: usize, resting: usize, retry: Option<u64>) -> String {
    let advice = match retry {
        Some(seconds) => format!("{resting} resting, try again in {seconds} s"),
        None => "no address is about to be released".to_owned(),
    };
    format!("pool {cidr} exhausted: {leased} leased, {advice}")
}
