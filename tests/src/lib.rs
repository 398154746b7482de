//! Harness of the tests that use real namespaces: a node, its daemon, pods attached by the
//! real shim, and checks that wait. Everything it makes is removed on drop, also on panic.

mod command;
mod daemon;
mod eventually;
mod namespace;
mod node;
mod pod;
mod raw_socket;
mod throughput;
mod web;

pub use command::{Output, binary, run, run_in, tool};
pub use daemon::{Daemon, DaemonOptions};
pub use eventually::eventually;
pub use namespace::{Namespace, inside, join};
pub use node::{Cluster, ClusterOptions};
pub use pod::{Pod, PodBuilder};
pub use raw_socket::RawSocket;
pub use throughput::{Iperf, megabits};
pub use web::{WebServer, fetch, serve};
