//! From the errors of lower layers to CNI errors.

use std::error::Error;

use vswitch_api::cni::{CniCode, CniFailure};

use super::world::StepError;
use crate::ipam::{DelegateError, IpamError};
use crate::store::StoreError;

/// Text of an error and all its causes.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn causes(error: &dyn Error) -> String {
    error.source().map(chain).unwrap_or_default()
}

pub(super) fn of_step(code: CniCode, doing: &str, error: &StepError) -> CniFailure {
    let code = if error.is_retry_later() {
        CniCode::TryAgainLater
    } else {
        code
    };
    CniFailure::new(code, format!("{doing}: {error}")).with_details(causes(error))
}

pub(super) fn of_ipam(error: &IpamError) -> CniFailure {
    let code = match error {
        IpamError::Exhausted { .. } => CniCode::TryAgainLater,
        IpamError::Store { .. } => CniCode::Io,
        IpamError::Config { .. } => CniCode::Internal,
        IpamError::Unusable { .. } | IpamError::InUse { .. } | IpamError::Conflict { .. } => {
            CniCode::AddressRefused
        }
    };
    CniFailure::new(code, error.to_string()).with_details(causes(error))
}

pub(super) fn of_store(error: &StoreError) -> CniFailure {
    CniFailure::new(CniCode::Io, error.to_string()).with_details(causes(error))
}

/// The plugin's own error goes through as it is: its code tells the runtime what to do.
pub(super) fn of_delegate(error: DelegateError) -> CniFailure {
    match error {
        DelegateError::Failed { plugin, source } => CniFailure {
            msg: format!("IPAM plugin {plugin}: {}", source.msg),
            ..source
        },
        DelegateError::Name { .. } => CniFailure::new(CniCode::InvalidConfig, error.to_string()),
        other => {
            CniFailure::new(CniCode::DelegateFailed, other.to_string()).with_details(causes(&other))
        }
    }
}

/// The list of what could not be undone.
pub(super) fn of_problems(doing: &str, problems: &[String]) -> Result<(), CniFailure> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(CniFailure::new(
        CniCode::TeardownIncomplete,
        format!("{doing} left something behind"),
    )
    .with_details(problems.join("; ")))
}
