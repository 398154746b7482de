//! Harness of the tests that use real namespaces: a node, its daemon, pods attached by the
//! real shim, and checks that wait. Everything it makes is removed on drop, also on panic.

mod api_server;
mod command;
mod custom_resource;
mod daemon;
mod eventually;
mod http;
mod hub;
mod kubernetes;
mod live_trace;
mod namespace;
mod nodes;
mod pod;
mod raw_socket;
mod throughput;
mod web;

pub use api_server::{ApiServer, pod_manifest, wait_for_state};
pub use command::{Output, binary, run, tool};
pub use custom_resource::CustomResource;
pub use daemon::{Daemon, DaemonOptions};
pub use eventually::{eventually, eventually_within};
pub use hub::{Hub, kubeconfig, make_certificate};
pub use live_trace::LiveTrace;
pub use namespace::{Namespace, inside, join, run_in};
pub use nodes::{Cluster, ClusterOptions, plug, underlay};
pub use pod::{Pod, PodBuilder};
pub use raw_socket::RawSocket;
pub use throughput::{Iperf, Megabits};
pub use web::{WebServer, fetch, serve};
