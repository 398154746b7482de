//! `vsctl store`: losses of the daemon's store.

use anyhow::Result;
use clap::{Args, Subcommand};
use vswitch_api::v1::{AcceptLoss, AcceptedLosses};

use crate::output::{Format, print};
use crate::server::Server;

/// `store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Accepts what status says is lost: namespaces isolated because of it are judged by the
    /// policies that are left. Write the policies again first, where you can.
    AcceptLoss(AcceptLossArgs),
}

/// `store accept-loss`.
#[derive(Debug, Args)]
pub(crate) struct AcceptLossArgs {
    /// Only what concerns this namespace alone.
    namespace: Option<String>,
}

/// Ends losses.
pub(crate) fn store(server: &Server, command: &StoreCommand, format: Format) -> Result<()> {
    let StoreCommand::AcceptLoss(args) = command;
    let body = AcceptLoss {
        namespace: args.namespace.clone(),
    };
    let answer: AcceptedLosses = server.post("/v1/store/accept-loss", &body)?;
    print(format, &answer, || {
        if answer.accepted.is_empty() {
            return "nothing to accept\n".to_owned();
        }
        let line = |loss: &String| format!("accepted: {loss}\n");
        answer.accepted.iter().map(line).collect()
    })
}
