//! The `nft` binary: one transaction per call, one call at a time.
//!
//! Text is handed over on standard input. Nothing from outside reaches it unchecked: names
//! are [`NftTable`](super::NftTable) or pass [`quoted`], addresses are typed.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use vswitch_api::IfName;

/// Serialises transactions: concurrent ones fail with EBUSY or are retried by nft with a
/// full re-read of the rule set. It guards no data, so a poisoned lock is as good.
static TRANSACTION: Mutex<()> = Mutex::new(());

/// A transaction that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no `nft` in PATH.
    #[error("run nft: it is not installed or not in PATH (Debian package nftables)")]
    Missing {
        /// Cause.
        source: io::Error,
    },
    /// `nft` could not be started or talked to.
    #[error("run nft")]
    Run {
        /// Cause.
        source: io::Error,
    },
    /// `nft` or the kernel refused; nothing of the transaction is in force.
    #[error("{operation}: nft says: {message}")]
    Refused {
        /// What the transaction was for.
        operation: String,
        /// Standard error of `nft`, on one line.
        message: String,
    },
    /// An interface name that the rule syntax cannot hold.
    #[error("interface {ifname} cannot be named in a rule: only letters, digits and _ . - @ can")]
    Unquotable {
        /// The name.
        ifname: IfName,
    },
}

/// Applies a transaction in the calling thread's network namespace; blocks (8 to 20 ms measured,
/// 40 ms beside 5000 chains of kube-proxy, whose names nft reads first).
pub(super) fn apply(operation: &str, transaction: &str) -> Result<(), NftError> {
    let _one_at_a_time = TRANSACTION.lock().unwrap_or_else(PoisonError::into_inner);
    run(&["-f", "-"], transaction)?
        .map(drop)
        .map_err(|message| refused(operation, message))
}

/// Returns the chains of a table (`netdev vswitch`), `None` if there is no such table; blocks.
pub(super) fn chains(table: &str) -> Result<Option<Vec<Chain>>, NftError> {
    let arguments = ["-j", "list", "table"]
        .into_iter()
        .chain(table.split(' '))
        .collect::<Vec<_>>();
    let operation = || format!("list table {table}");
    let listing = match run(&arguments, "")? {
        Ok(listing) => listing,
        Err(message) if message.contains("No such file or directory") => return Ok(None),
        Err(message) => return Err(refused(&operation(), message)),
    };
    let listing: Listing = serde_json::from_str(&listing)
        .map_err(|error| refused(&operation(), format!("unexpected output: {error}")))?;
    Ok(Some(
        listing
            .nftables
            .into_iter()
            .filter_map(|entry| entry.chain)
            .collect(),
    ))
}

/// Returns the packets that named counters of a table have counted; none if there is no such
/// table. Blocks.
pub(super) fn counters(table: &str) -> Result<Vec<(String, u64)>, NftError> {
    let arguments = ["-j", "list", "counters", "table"]
        .into_iter()
        .chain(table.split(' '))
        .collect::<Vec<_>>();
    let operation = || format!("list counters of table {table}");
    let listing = match run(&arguments, "")? {
        Ok(listing) => listing,
        Err(message) if message.contains("No such file or directory") => return Ok(Vec::new()),
        Err(message) => return Err(refused(&operation(), message)),
    };
    let listing: Listing = serde_json::from_str(&listing)
        .map_err(|error| refused(&operation(), format!("unexpected output: {error}")))?;
    let counters = listing
        .nftables
        .into_iter()
        .filter_map(|entry| entry.counter);
    Ok(counters
        .map(|counter| (counter.name, counter.packets))
        .collect())
}

/// What `nft -j` says of a chain.
#[derive(Debug, Deserialize)]
pub(super) struct Chain {
    pub(super) name: String,
    #[serde(default)]
    pub(super) hook: Option<String>,
    #[serde(default)]
    pub(super) policy: Option<String>,
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<ListedObject>,
}

#[derive(Deserialize)]
struct ListedObject {
    #[serde(default)]
    chain: Option<Chain>,
    #[serde(default)]
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    name: String,
    packets: u64,
}

/// The inner result is what `nft` says: its output, or on failure its message on one line.
fn run(arguments: &[&str], input: &str) -> Result<Result<String, String>, NftError> {
    let mut child = Command::new("nft")
        .args(arguments)
        // Messages are looked at.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NftError::Missing { source },
            _ => NftError::Run { source },
        })?;
    // A failed write (nft gave up early) shows in its exit status and message.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let output = child
        .wait_with_output()
        .map_err(|source| NftError::Run { source })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        written.map_err(|source| NftError::Run { source })?;
        return Ok(Ok(text(&output.stdout)));
    }
    let message = text(&output.stderr);
    Ok(Err(message
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")))
}

fn refused(operation: &str, message: String) -> NftError {
    NftError::Refused {
        operation: operation.to_owned(),
        message,
    }
}

/// Returns the name in quotes; refuses what would end the quotes or act as a wildcard.
pub(super) fn quoted(ifname: &IfName) -> Result<String, NftError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-@".contains(&b);
    if ifname.as_str().bytes().all(plain) {
        Ok(format!("\"{ifname}\""))
    } else {
        Err(NftError::Unquotable {
            ifname: ifname.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_rule_syntax_are_refused() {
        assert_eq!(
            quoted(&"eth0.100".parse().unwrap()).unwrap(),
            "\"eth0.100\""
        );
        for bad in ["a\"b", "eth*", "a;b", "a\\b", "a{"] {
            assert!(quoted(&bad.parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn refused_transaction_says_what_for_and_why() {
        let error = apply("install nonsense", "add rule inet no-such-table x y").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("install nonsense: nft says: "),
            "{error}"
        );
    }
}
