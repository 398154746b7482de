//! Losses: acknowledged records of which no whole copy is left on the disk.
//!
//! A loss is kept as a record itself, so that it is known until the lost record is written again
//! or somebody who knows better accepts it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Bucket, Write};

/// Keys in [`Bucket::Meta`] under which losses are kept.
pub(super) const PREFIX: &str = "loss/";

/// Resources whose records are policies of every namespace, or may be named by one.
const OF_ALL: [&str; 7] = [
    "clusternetworkpolicies",
    "adminnetworkpolicies",
    "baselineadminnetworkpolicies",
    "globalnetworkpolicies",
    "globalnetworksets",
    "tiers",
    "nodes",
];

/// Resources of a namespace whose records policies are judged by.
const JUDGED_BY: [&str; 6] = [
    "networkpolicies",
    "networkpolicies.projectcalico.org",
    "networksets",
    "serviceaccounts",
    "pods",
    "namespaces",
];

/// Something that was acknowledged and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Loss {
    /// A record of which only the key is left.
    Record {
        /// Where.
        bucket: Bucket,
        /// Which, as text.
        key: String,
    },
    /// Commits of which nothing is left: any record may have been among them.
    Commits {
        /// Number of the first.
        first: u64,
        /// Number of the last.
        last: u64,
    },
    /// What was written after the last export of a store in the format of earlier releases.
    SinceExport,
    /// Nothing is left of a store that was in use.
    Everything,
}

/// Where the objects come from that rules are compiled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectsFrom {
    /// The store: a lost object is missing.
    Store,
    /// An API server, which lists all of them again: of what the store has, an operator's flows
    /// alone may have closed something.
    ApiServer,
}

/// Namespaces whose policies may be incomplete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// These.
    Namespaces(BTreeSet<String>),
    /// Any.
    All,
}

impl Doubt {
    /// Returns the namespaces in which a loss may have opened something.
    #[must_use]
    pub fn of(losses: &[Loss], objects: ObjectsFrom) -> Self {
        let mut namespaces = BTreeSet::new();
        for loss in losses {
            match loss.scope(objects) {
                Some(Self::All) => return Self::All,
                Some(Self::Namespaces(some)) => namespaces.extend(some),
                None => {}
            }
        }
        Self::Namespaces(namespaces)
    }

    /// Whether a namespace is among them.
    #[must_use]
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(some) => some.contains(namespace),
        }
    }
}

impl Loss {
    /// Where this loss may have opened something; `None`: nowhere.
    fn scope(&self, objects: ObjectsFrom) -> Option<Doubt> {
        if objects == ObjectsFrom::ApiServer && !self.may_concern(Bucket::AdminFlows) {
            return None;
        }
        match self {
            Self::Commits { .. } | Self::SinceExport | Self::Everything => Some(Doubt::All),
            // A flow of an operator may have dropped anything of anybody.
            Self::Record {
                bucket: Bucket::AdminFlows,
                ..
            } => Some(Doubt::All),
            Self::Record {
                bucket: Bucket::Objects,
                key,
            } => {
                let mut parts = key.splitn(3, '/');
                let (resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
                if OF_ALL.contains(&resource) {
                    return Some(Doubt::All);
                }
                let namespace = if namespace.is_empty() {
                    name
                } else {
                    namespace
                };
                let is_judged_by = JUDGED_BY.contains(&resource);
                is_judged_by.then(|| Doubt::Namespaces(BTreeSet::from([namespace.to_owned()])))
            }
            Self::Record { .. } => None,
        }
    }

    /// Says what is isolated because of it, and until when.
    #[must_use]
    pub fn consequence(&self, objects: ObjectsFrom) -> Option<String> {
        let until = match self {
            Self::Record { .. } => "until it is written again or the loss is accepted",
            _ => "until the loss is accepted (vsctl store accept-loss)",
        };
        match self.scope(objects)? {
            Doubt::All => Some(format!("all namespaces are isolated {until}")),
            Doubt::Namespaces(some) => {
                let some: Vec<&str> = some.iter().map(String::as_str).collect();
                Some(format!("namespace {} is isolated {until}", some.join(", ")))
            }
        }
    }

    /// Whether it leaves open which records there were.
    #[must_use]
    pub const fn is_open_ended(&self) -> bool {
        !matches!(self, Self::Record { .. })
    }

    /// Whether it may concern records of a bucket.
    #[must_use]
    pub fn may_concern(&self, wanted: Bucket) -> bool {
        match self {
            Self::Record { bucket, .. } => *bucket == wanted,
            Self::Commits { .. } | Self::SinceExport | Self::Everything => true,
        }
    }

    /// Returns the key of the lost record if it was in this bucket.
    #[must_use]
    pub fn key_in(&self, wanted: Bucket) -> Option<&str> {
        match self {
            Self::Record { bucket, key } if *bucket == wanted => Some(key),
            _ => None,
        }
    }

    /// Whether it concerns one namespace and no other.
    pub(super) fn is_of(&self, namespace: &str) -> bool {
        let only = Doubt::Namespaces(BTreeSet::from([namespace.to_owned()]));
        self.scope(ObjectsFrom::Store) == Some(only)
    }

    /// Whether a write makes it good.
    pub(super) fn is_healed_by(&self, write: &Write) -> bool {
        let Self::Record { bucket, key } = self else {
            return false;
        };
        let (Write::Put(of, written, _) | Write::Delete(of, written)) = write;
        of == bucket && written == key.as_bytes()
    }

    /// Key of its own record.
    pub(super) fn key(&self) -> Vec<u8> {
        let name = match self {
            Self::Record { bucket, key } => format!("record/{}/{key}", char::from(bucket.byte())),
            Self::Commits { first, last } => format!("commits/{first}-{last}"),
            Self::SinceExport => "since-export".to_owned(),
            Self::Everything => "everything".to_owned(),
        };
        format!("{PREFIX}{name}").into_bytes()
    }

    pub(super) fn put(&self) -> Write {
        let value = serde_json::to_vec(self).expect("text and numbers are always JSON");
        Write::Put(Bucket::Meta, self.key(), value)
    }

    pub(super) fn delete(&self) -> Write {
        Write::Delete(Bucket::Meta, self.key())
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record { bucket, key } => {
                write!(f, "the record of {} {key} is damaged", bucket.noun())?;
            }
            Self::Commits { first, last } if first == last => {
                write!(f, "commit {first} is lost, and what it wrote is not known")?;
            }
            Self::Commits { first, last } => {
                write!(
                    f,
                    "commits {first} to {last} are lost, and what they wrote is not known"
                )?;
            }
            Self::SinceExport => {
                write!(f, "what was written after the last export is lost")?;
            }
            Self::Everything => f.write_str("the records of the last run are gone")?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bucket: Bucket, key: &str) -> Loss {
        Loss::Record {
            bucket,
            key: key.to_owned(),
        }
    }

    fn doubt(losses: &[Loss]) -> Vec<String> {
        in_doubt(losses, ObjectsFrom::Store)
    }

    fn in_doubt(losses: &[Loss], objects: ObjectsFrom) -> Vec<String> {
        match Doubt::of(losses, objects) {
            Doubt::All => vec!["*".to_owned()],
            Doubt::Namespaces(some) => some.into_iter().collect(),
        }
    }

    #[test]
    fn a_loss_closes_what_it_may_have_opened() {
        let policy = record(Bucket::Objects, "networkpolicies/shop/deny");
        assert_eq!(doubt(std::slice::from_ref(&policy)), ["shop"]);
        assert_eq!(
            doubt(&[record(Bucket::Objects, "namespaces//team")]),
            ["team"]
        );
        assert_eq!(
            doubt(&[record(Bucket::Objects, "pods/a/b"), policy]),
            ["a", "shop"]
        );
        for of_cluster in [
            "clusternetworkpolicies//guard",
            "adminnetworkpolicies//guard",
            "baselineadminnetworkpolicies//default",
        ] {
            assert_eq!(doubt(&[record(Bucket::Objects, of_cluster)]), ["*"]);
        }
        assert!(doubt(&[record(Bucket::Objects, "services/shop/web")]).is_empty());
        assert!(doubt(&[record(Bucket::Leases, "lease/10.0.0.1")]).is_empty());
        assert_eq!(doubt(&[record(Bucket::AdminFlows, "drop-web")]), ["*"]);
        assert_eq!(doubt(&[Loss::Commits { first: 3, last: 3 }]), ["*"]);
        assert_eq!(doubt(&[Loss::Everything]), ["*"]);
    }

    #[test]
    fn of_a_node_of_a_cluster_a_lost_flow_alone_may_have_opened_something() {
        let doubt = |loss: Loss| in_doubt(&[loss], ObjectsFrom::ApiServer);
        assert!(doubt(record(Bucket::Objects, "networkpolicies/shop/deny")).is_empty());
        assert!(doubt(record(Bucket::Cluster, "networkpolicies/shop/deny")).is_empty());
        assert!(doubt(record(Bucket::Leases, "lease/10.0.0.1")).is_empty());
        assert_eq!(doubt(record(Bucket::AdminFlows, "drop-web")), ["*"]);
        assert_eq!(doubt(Loss::Commits { first: 3, last: 3 }), ["*"]);
        assert_eq!(doubt(Loss::SinceExport), ["*"]);
        assert_eq!(doubt(Loss::Everything), ["*"]);
    }
}
