//! Health check NodePorts: tells load balancers whether this node has endpoints of a Service
//! whose traffic stays on the node it came to (`externalTrafficPolicy: Local`).
//!
//! The answer is that of kube-proxy: 200 if there are any, else 503, and a body that names the
//! Service and their number.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::service::HealthCheck;

/// A server of one port.
#[derive(Debug)]
struct Server {
    check: watch::Sender<HealthCheck>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The servers of all ports.
#[derive(Debug, Default)]
pub struct HealthChecks {
    servers: BTreeMap<u16, Server>,
}

impl HealthChecks {
    /// Serves these from now on, and no others. A port that somebody else has is logged and
    /// tried again with the next change.
    pub fn serve(&mut self, wanted: BTreeMap<u16, HealthCheck>) {
        self.servers
            .retain(|port, server| wanted.contains_key(port) && !server.task.is_finished());
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
                    self.servers.insert(port, start(check));
                }
            }
        }
    }
}

fn start(check: HealthCheck) -> Server {
    let (sender, receiver) = watch::channel(check);
    let task = tokio::spawn(async move {
        if let Err(error) = run(receiver.clone()).await {
            let (port, service) = (receiver.borrow().port, receiver.borrow().service.clone());
            tracing::warn!(port, %service, %error, "health check NodePort");
        }
    });
    Server {
        check: sender,
        task,
    }
}

async fn run(check: watch::Receiver<HealthCheck>) -> std::io::Result<()> {
    let port = check.borrow().port;
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = match TcpListener::bind(everywhere).await {
        Ok(listener) => listener,
        // Where IPv6 is switched off.
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await?,
    };
    let router = Router::new().fallback(answer).with_state(check);
    axum::serve(listener, router).await
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
