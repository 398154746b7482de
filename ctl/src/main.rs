//! `vsctl`: inspects and drives a running `vswitchd`.
//!
//! Parses the command line, asks the daemon over its API socket and prints. One file per
//! noun; `output` knows tables, JSON and YAML; `server` is the only one that talks.
//! Exit codes: 0 ok, 1 failure, 2 not found or refused by a verdict, 64 bad usage; `ping` has 3 and 4
//! besides.

mod allowed;
mod answers;
mod audit;
mod capture;
mod connections;
mod expect;
mod explain;
mod files;
mod flows;
mod grid;
mod groups;
mod matrix;
mod objects;
mod output;
mod ping;
mod policies;
mod ports;
mod records;
mod server;
mod simulate;
mod status;
mod store;
mod trace;
mod ui;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::Format;
use server::Server;

/// Inspects and drives a running vswitchd.
#[derive(Debug, Parser)]
#[command(name = "vsctl", version, max_term_width = 100)]
struct Cli {
    /// API socket of the daemon.
    #[arg(
        long,
        global = true,
        env = "VSWITCH_SOCKET",
        default_value = "/run/vswitchd/api.sock"
    )]
    socket: PathBuf,

    /// API of the daemon over TCP instead, e.g. http://127.0.0.1:7441.
    #[arg(long, global = true, env = "VSWITCH_SERVER")]
    server: Option<String>,

    /// File that holds the bearer token for --server.
    #[arg(long, global = true, env = "VSWITCH_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// How to print: a table for people, json, jsonl or yaml for programs, wide for more columns.
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t = Format::Table)]
    output: Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows whether the switch is ready, how full its tables are and what it dropped.
    Status(status::StatusArgs),
    /// Shows ports with addresses and counters.
    Show,
    /// Shows every counter of every port, with drops by reason.
    DumpPorts,
    /// Shows the rules of all tables, or of one.
    DumpFlows(flows::DumpFlows),
    /// Shows tracked connections.
    DumpConntrack(connections::DumpConntrack),
    /// Shows address sets and their members.
    DumpSets,
    /// Shows load-balancing groups: the endpoints that Services' connections are spread over.
    DumpGroups,
    /// Shows what CNI ADD attached.
    DumpAttachments,
    /// Shows addresses in use and resting.
    DumpLeases,
    /// Walks a described packet through the tables and says who decided; exits 2 on a drop. With
    /// --live traces the packets that come, also across nodes.
    Trace(trace::TraceArgs),
    /// Sends a probe from inside the switch on behalf of a pod, and says where it ended.
    Ping(ping::PingArgs),
    /// Says which policy allows a connection, or what is missing; exits 2 if it is denied.
    Explain(explain::ExplainArgs),
    /// Shows who can reach whom: every pod against every port that a pod declares.
    Matrix(matrix::MatrixArgs),
    /// Judges connections by manifests alone: what policies would do, without a daemon.
    Simulate(simulate::SimulateArgs),
    /// Shows what policies in audit would have denied of what is allowed, by peer and port.
    Audit(audit::AuditArgs),
    /// Shows what was denied, and when: kept over restarts, for a day by default; with --allowed
    /// connections that were allowed and have ended.
    Flows(records::FlowsArgs),
    /// Tells of the last denials from and to a pod: which policy, and what would have helped.
    Why(records::WhyArgs),
    /// Serves the daemon's page to a browser on this machine: who talks to whom, and what was denied.
    Ui(ui::UiArgs),
    /// Captures the packets of a pod, both directions, each with what the switch decided on it.
    Capture(capture::CaptureArgs),
    /// Creates or changes objects from manifests (YAML or JSON).
    Apply(objects::ApplyArgs),
    /// Shows Kubernetes objects: pods, namespaces, networkpolicies, clusternetworkpolicies,
    /// adminnetworkpolicies, baselineadminnetworkpolicies, nodes, services, endpointslices; or `policies`: those of all kinds in the order of evaluation.
    Get(objects::GetArgs),
    /// Sets (KEY=VALUE) or removes (KEY-) labels of an object.
    Label(objects::LabelArgs),
    /// Deletes objects.
    Delete(objects::DeleteArgs),
    /// Adds or replaces a flow of table 30 (Admin).
    AddFlow(flows::AddFlow),
    /// Deletes a flow of table 30.
    DelFlow(flows::DelFlow),
    /// Adds a port for a virtual machine or a mirror.
    AddPort(ports::AddPort),
    /// Removes a port that add-port made.
    DelPort(ports::DelPort),
    /// Ends losses of the daemon's store that nobody will make good.
    #[command(subcommand)]
    Store(store::StoreCommand),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vsctl: {error:#}");
            ExitCode::from(if server::is_not_found(&error) { 2 } else { 1 })
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let server = Server::connect(
        &cli.socket,
        cli.server.as_deref(),
        cli.token_file.as_deref(),
    )?;
    let format = cli.output;
    match &cli.command {
        Command::Status(args) => return status::status(&server, args, format),
        Command::Show => ports::show(&server, format)?,
        Command::DumpPorts => ports::dump_ports(&server, format)?,
        Command::DumpFlows(args) => flows::dump_flows(&server, args, format)?,
        Command::DumpConntrack(args) => connections::dump_conntrack(&server, args, format)?,
        Command::DumpSets => flows::dump_sets(&server, format)?,
        Command::DumpGroups => groups::dump_groups(&server, format)?,
        Command::DumpAttachments => ports::dump_attachments(&server, format)?,
        Command::DumpLeases => ports::dump_leases(&server, format)?,
        Command::Trace(args) => return trace::trace(server, args, format),
        Command::Ping(args) => return ping::ping(&server, args, format),
        Command::Explain(args) => return explain::explain(&server, args, format),
        Command::Matrix(args) => matrix::matrix(&server, args, format)?,
        Command::Simulate(args) => return simulate::simulate(args, format),
        Command::Audit(args) => audit::audit(&server, args, format)?,
        Command::Flows(args) => records::flows(&server, args, format)?,
        Command::Why(args) => records::why(&server, args, format)?,
        Command::Ui(args) => ui::ui(&server, args)?,
        Command::Capture(args) => capture::capture(&server, args)?,
        Command::Apply(args) => objects::apply(&server, args)?,
        Command::Get(args) if args.is_of_all_policies() => {
            policies::get_policies(&server, format)?;
        }
        Command::Get(args) => objects::get(&server, args, format)?,
        Command::Label(args) => objects::label(&server, args)?,
        Command::Delete(args) => objects::delete(&server, args)?,
        Command::AddFlow(args) => flows::add_flow(&server, args)?,
        Command::DelFlow(args) => flows::del_flow(&server, args)?,
        Command::AddPort(args) => ports::add_port(&server, args, format)?,
        Command::DelPort(args) => ports::del_port(&server, args)?,
        Command::Store(command) => store::store(&server, command, format)?,
    }
    Ok(ExitCode::SUCCESS)
}
