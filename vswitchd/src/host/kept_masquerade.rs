//! Masquerade rules, kept in place while the daemon runs: installed again after somebody removes
//! them, as a `flush ruleset` does, and widened by the networks of other nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use super::{Masquerade, MasqueradeSpec, NftError, NftTable};

use crate::errors;
use crate::supervise::{self, Beats, Ended};

/// How often the table is looked at.
const EVERY: Duration = Duration::from_secs(15);

/// The masquerade with what it has to be.
#[derive(Debug)]
pub struct KeptMasquerade {
    masquerade: Masquerade,
    configured: MasqueradeSpec,
    /// Held over an installation, so that the rules are always those of the latest
    /// specification.
    spec: Mutex<MasqueradeSpec>,
}

impl KeptMasquerade {
    /// Returns the masquerade of this table; nothing is installed yet.
    #[must_use]
    pub fn new(table: NftTable, spec: MasqueradeSpec) -> Self {
        Self {
            masquerade: Masquerade::new(table),
            configured: spec.clone(),
            spec: Mutex::new(spec),
        }
    }

    /// Installs the rules. Blocks.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn install(&self) -> Result<(), NftError> {
        self.masquerade.install(&self.spec())
    }

    /// Leaves alone what goes to these networks as well as to the configured ones. Blocks.
    pub fn learn(&self, networks: impl Iterator<Item = IpNet>) {
        let mut wanted = self.configured.clone();
        wanted.cluster_cidrs.extend(networks);
        let mut spec = self.spec();
        if *spec == wanted {
            return;
        }
        match self.masquerade.install(&wanted) {
            Ok(()) => *spec = wanted,
            Err(error) => {
                let error = errors::chain(&error);
                tracing::error!(error, "changing the masquerade failed");
            }
        }
    }

    /// Keeps the rules in force until the daemon ends.
    pub async fn keep(self: Arc<Self>, beat: Beats) -> Ended {
        let mut tick = tokio::time::interval(EVERY);
        loop {
            beat.wait(tick.tick()).await;
            let masquerade = Arc::clone(&self);
            if let Err(error) = supervise::blocking(move || masquerade.repair()).await {
                let error = errors::chain(&error);
                tracing::error!(error, "checking the masquerade failed");
            }
        }
    }

    /// Installs the rules if they are gone. Blocks.
    fn repair(&self) -> Result<(), NftError> {
        let spec = self.spec();
        if self.masquerade.is_installed()? {
            return Ok(());
        }
        tracing::warn!("masquerade was gone; put back");
        self.masquerade.install(&spec)
    }

    /// The specification is replaced as a whole: a panic elsewhere leaves it whole.
    fn spec(&self) -> MutexGuard<'_, MasqueradeSpec> {
        self.spec.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{held_table, in_new_netns, run};
    use super::*;

    fn kept() -> KeptMasquerade {
        let spec = MasqueradeSpec {
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            cluster_cidrs: Vec::new(),
            gateway_ifname: "vsw0".parse().unwrap(),
        };
        KeptMasquerade::new(NftTable::default(), spec)
    }

    fn rules() -> String {
        run("nft list ruleset").unwrap()
    }

    #[test]
    fn networks_that_were_refused_are_left_alone_as_soon_as_the_kernel_takes_them() {
        in_new_netns(|| {
            let kept = kept();
            let others = || ["10.245.2.0/24".parse().unwrap()].into_iter();
            let holder = held_table("inet", &NftTable::default());
            kept.learn(others());
            assert!(!rules().contains("10.245.2.0"), "{}", rules());
            drop(holder);
            // What the next round of the nodes' network says, with nothing new in it.
            kept.learn(others());
            assert!(rules().contains("10.245.2.0/24"), "{}", rules());
        });
    }

    #[test]
    fn rules_that_are_gone_are_put_back_as_they_were_last() {
        in_new_netns(|| {
            let kept = kept();
            kept.install().unwrap();
            kept.learn(["10.245.2.0/24".parse().unwrap()].into_iter());
            let installed = rules();
            run("nft flush ruleset").unwrap();
            let holder = held_table("inet", &NftTable::default());
            kept.repair().unwrap_err();
            drop(holder);
            kept.repair().unwrap();
            assert_eq!(rules(), installed);
            kept.repair().unwrap();
            assert_eq!(rules(), installed);
        });
    }
}
