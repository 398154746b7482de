//! Maps errors of lower layers to CNI errors.

use std::error::Error;

use vswitch_api::cni::{CniCode, CniFailure};

use crate::attach::{AttachError, StepError};
use crate::errors::causes;
use crate::ipam::{DelegateError, IpamError};

pub(super) fn of_step(code: CniCode, doing: &str, error: &StepError) -> CniFailure {
    let code = if error.is_retry_later() {
        CniCode::TryAgainLater
    } else {
        code
    };
    CniFailure::new(code, format!("{doing}: {error}")).with_details(causes(error))
}

/// A failure of what was asked of the attachments.
pub(super) fn of_attach(error: AttachError) -> CniFailure {
    let told = |code, error: &(dyn Error + 'static)| {
        CniFailure::new(code, error.to_string()).with_details(causes(error))
    };
    match error {
        AttachError::Attached {
            ref netns,
            ref network,
            ..
        } => {
            let details = format!("attached in {} to {network}", netns.display());
            told(CniCode::AlreadyAttached, &error).with_details(details)
        }
        AttachError::NameTaken { .. } => told(CniCode::InterfaceFailed, &error),
        AttachError::Unknown { .. } => told(CniCode::UnknownContainer, &error),
        AttachError::Lease { source, .. } | AttachError::LostLeases { source } => of_ipam(&source),
        AttachError::NotLeased { .. } => told(CniCode::CheckFailed, &error),
        AttachError::Delegate { source, .. } => of_delegate(source),
        AttachError::NoNumber | AttachError::Descriptors { .. } => {
            told(CniCode::TryAgainLater, &error)
        }
        AttachError::Mtu { .. } => {
            CniFailure::new(CniCode::InvalidConfig, format!("configuration key {error}"))
        }
        AttachError::Pod { doing, source } => of_step(CniCode::PodFailed, doing, &source),
        AttachError::Device { doing, source } => of_step(CniCode::InterfaceFailed, doing, &source),
        AttachError::Port { doing, source } => of_step(CniCode::PortFailed, doing, &source),
        AttachError::Store { source, .. } => told(CniCode::Io, &source),
        AttachError::Incomplete { doing, problems } => {
            let msg = format!("{doing} left something behind");
            CniFailure::new(CniCode::TeardownIncomplete, msg).with_details(problems.join("; "))
        }
        AttachError::NotUndone { source, problems } => {
            let mut failed = of_attach(*source);
            let joint = if failed.details.is_empty() { "" } else { "; " };
            let problems = problems.join("; ");
            failed.details += &format!("{joint}undoing it failed too: {problems}");
            failed
        }
        AttachError::BrokenOff { source } => {
            let msg = "the call broke off; see the log of vswitchd";
            CniFailure::new(CniCode::Internal, msg).with_details(source.to_string())
        }
    }
}

/// What CHECK found: one code, whatever is missing.
pub(super) fn of_check(error: AttachError) -> CniFailure {
    match error {
        AttachError::Pod { doing, source }
        | AttachError::Device { doing, source }
        | AttachError::Port { doing, source } => of_step(CniCode::CheckFailed, doing, &source),
        other => of_attach(other),
    }
}

fn of_ipam(error: &IpamError) -> CniFailure {
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
