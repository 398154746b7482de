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
