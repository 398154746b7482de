//! Health check NodePorts: tells load balancers whether this node has endpoints of a Service
//! whose traffic stays on the node it came to (`externalTrafficPolicy: Local`).
//!
//! The answer is that of kube-proxy: 200 if there are any, else 503, and a body that names the
//! Service and their number.

use std::collections::BTreeMap;
use std::future::IntoFuture as _;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::service::HealthCheck;
use crate::supervise::{Beats, Ended, Part, Supervisor, Task};

/// Pause before a port that somebody else has is asked for again.
const BIND_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A server of one port.
#[derive(Debug)]
struct Server {
    check: watch::Sender<HealthCheck>,
    _task: Task,
}

/// The servers of all ports.
#[derive(Debug)]
pub struct HealthChecks {
    servers: BTreeMap<u16, Server>,
    supervisor: Supervisor,
}

impl HealthChecks {
    /// Serves none yet.
    #[must_use]
    pub const fn new(supervisor: Supervisor) -> Self {
        Self {
            servers: BTreeMap::new(),
            supervisor,
        }
    }

    /// Serves these from now on, and no others. A port that somebody else has is logged and
    /// tried again.
    pub fn serve(&mut self, wanted: BTreeMap<u16, HealthCheck>) {
        self.servers.retain(|port, _| wanted.contains_key(port));
        for (port, check) in wanted {
            match self.servers.get(&port) {
                Some(server) => {
                    server.check.send_if_modified(|now| {
                        let is_other = *now != check;
                        *now = check;
                        is_other
                    });
                }
                None => {
                    let server = self.start(check);
                    self.servers.insert(port, server);
                }
            }
        }
    }

    fn start(&self, check: HealthCheck) -> Server {
        let port = check.port;
        let (sender, receiver) = watch::channel(check);
        let run = move |beat: Beats| async move {
            let listener = bind(port, &receiver, &beat).await;
            let router = Router::new().fallback(answer).with_state(receiver);
            // Accepts for ever: failures are those of single connections.
            let _ended = beat.wait(axum::serve(listener, router).into_future()).await;
            Ended::Early("it no longer accepts connections")
        };
        let instance = port.to_string();
        let task = self.supervisor.task(Part::HealthCheckPort, &instance, run);
        Server {
            check: sender,
            _task: task,
        }
    }
}

/// Waits until the port is to be had.
async fn bind(port: u16, check: &watch::Receiver<HealthCheck>, beat: &Beats) -> TcpListener {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let mut is_failing = false;
    loop {
        let listener = match TcpListener::bind(everywhere).await {
            Ok(listener) => Ok(listener),
            // Where IPv6 is switched off.
            Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await,
        };
        match listener {
            Ok(listener) => return listener,
            Err(error) if !is_failing => {
                let service = check.borrow().service.clone();
                tracing::warn!(port, %service, %error, "listening on a health check NodePort failed");
                is_failing = true;
            }
            Err(_) => {}
        }
        beat.wait(tokio::time::sleep(BIND_AGAIN_AFTER)).await;
    }
}

async fn answer(State(check): State<watch::Receiver<HealthCheck>>) -> Response {
    let check = check.borrow().clone();
    let status = if check.local_endpoints == 0 {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let body = json!({
        "service": {"namespace": check.service.namespace, "name": check.service.name},
        "localEndpoints": check.local_endpoints,
        "serviceProxyHealthy": true,
    });
    (status, Json(body)).into_response()
}
