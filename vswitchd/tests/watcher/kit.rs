//! An API server behind a proxy that can refuse, drop and stall, and a node that watches it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use vswitchd::kube::{self, ApiServer, Cluster, WatchSettings};
use vswitchd::objects::{LastKnown, PatchKind, Registry, RegistryConfig, Resource, WriteOptions};
use vswitchd::rest::tcp::{TcpOptions, TcpServer, listen_tcp};
use vswitchd::rest::{Readers, kube_api};
use vswitchd::store::{Bucket, MemoryStore, Record, SharedStore, Store, StoreError, Write};
use vswitchd::supervise::{self, Part, Supervisor};

/// Short enough for a test; the API counts in seconds.
pub(crate) fn settings() -> WatchSettings {
    WatchSettings {
        watch_for: Duration::from_secs(2),
        grace: Duration::from_secs(1),
        least_pause: Duration::from_millis(20),
        most_pause: Duration::from_millis(300),
        page: 500,
        look_again: Duration::from_secs(1),
    }
}

/// A store that counts its commits, and refuses them while it is full.
#[derive(Debug, Default)]
pub(crate) struct CountingStore {
    inner: MemoryStore,
    /// Those that were asked for.
    pub(crate) commits: AtomicUsize,
    pub(crate) is_full: AtomicBool,
}

impl Store for CountingStore {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(bucket, key)
    }

    fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<Record>, StoreError> {
        self.inner.scan(bucket, prefix)
    }

    fn commit(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if self.is_full.load(Ordering::Relaxed) {
            return Err(StoreError::Commit {
                source: std::io::Error::from(std::io::ErrorKind::StorageFull).into(),
            });
        }
        self.inner.commit(batch)
    }
}

pub(crate) fn registry_config(node: &str) -> RegistryConfig {
    RegistryConfig {
        node_name: node.to_owned(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_ports: 30000..=32767,
    }
}

/// What the proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Connections are dropped, and none is made.
    Refuse,
    /// Connections that are there stay open and carry nothing more; later ones are forwarded.
    StallUpTo(usize),
}

/// A standalone API server, as a process would have it, behind a proxy.
pub(crate) struct Hub {
    store: SharedStore,
    pub(crate) registry: Arc<Registry>,
    upstream: Arc<Mutex<SocketAddr>>,
    stop: watch::Sender<bool>,
    mode: watch::Sender<Mode>,
    connections: Arc<AtomicUsize>,
    pub(crate) address: SocketAddr,
}

impl Hub {
    pub(crate) async fn start() -> Self {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let registry = Registry::open(Arc::clone(&store), registry_config("hub")).unwrap();
        let (stop, upstream) = serve_registry(&registry).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hub = Self {
            store,
            registry,
            upstream: Arc::new(Mutex::new(upstream)),
            stop,
            mode: watch::Sender::new(Mode::Forward),
            connections: Arc::default(),
            address: listener.local_addr().unwrap(),
        };
        let (upstream, mode) = (Arc::clone(&hub.upstream), hub.mode.subscribe());
        supervise::request(proxy(
            listener,
            upstream,
            mode,
            Arc::clone(&hub.connections),
        ));
        hub
    }

    pub(crate) fn go_away(&self) {
        self.mode.send_replace(Mode::Refuse);
    }

    pub(crate) fn come_back(&self) {
        self.mode.send_replace(Mode::Forward);
    }

    /// Another process with the same store.
    pub(crate) async fn restart(&mut self) {
        self.stop.send_replace(true);
        self.registry = Registry::open(Arc::clone(&self.store), registry_config("hub")).unwrap();
        let (stop, upstream) = serve_registry(&self.registry).await;
        self.stop = stop;
        *self.upstream.lock().unwrap() = upstream;
    }

    pub(crate) fn stall(&self) {
        let connections = self.connections.load(Ordering::SeqCst);
        self.mode.send_replace(Mode::StallUpTo(connections));
    }

    pub(crate) fn create(&self, resource: Resource, namespace: &str, object: Value) {
        let options = WriteOptions::default();
        self.registry
            .create(resource, namespace, object, options)
            .unwrap();
    }

    pub(crate) fn pod(&self, name: &str, node: &str, labels: &Value) {
        let pod = json!({"metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        self.create(Resource::Pod, "default", pod);
    }

    pub(crate) fn label_pod(&self, name: &str, value: &str) {
        let patch = json!({"metadata": {"labels": {"app": value}}});
        let options = WriteOptions::default();
        let (kind, pod) = (PatchKind::Merge, Resource::Pod);
        self.registry
            .patch(pod, "default", name, kind, &patch, options)
            .unwrap();
    }

    pub(crate) fn delete(&self, resource: Resource, namespace: &str, name: &str) {
        let options = vswitchd::objects::DeleteOptions::default();
        self.registry
            .delete(resource, namespace, name, &options)
            .unwrap();
    }

    /// The API server, as a kubeconfig leads to it.
    pub(crate) async fn api(&self) -> ApiServer {
        api_at(self.address).await
    }
}

/// Writes a kubeconfig and reads it as the daemon does.
pub(crate) async fn api_at(address: SocketAddr) -> ApiServer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig(address)).unwrap();
    ApiServer::new(Some(Path::new(&path))).await.unwrap()
}

fn kubeconfig(address: SocketAddr) -> String {
    let cluster = json!({"name": "hub", "cluster": {"server": format!("http://{address}")}});
    let context = json!({"name": "hub", "context": {"cluster": "hub", "user": "node"}});
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "hub",
        "clusters": [cluster], "contexts": [context], "users": [{"name": "node", "user": {}}],
    })
    .to_string()
}

async fn serve_registry(registry: &Arc<Registry>) -> (watch::Sender<bool>, SocketAddr) {
    let (stop, stopping) = watch::channel(false);
    let hooks = kube_api::KubeApiHooks {
        after_write: None,
        events: Registry::of_events(),
        readers: Readers::start(&Supervisor::default()).unwrap(),
        stop: stopping.clone(),
    };
    let router = kube_api::router(Arc::clone(registry), hooks);
    let listener = listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = TcpOptions {
        certificate: None,
        token_file: None,
        member_token_file: None,
        max_connections: 64,
    };
    let server = Arc::new(TcpServer::open(options).unwrap());
    let serve = |beat| server.serve(listener, router, stopping, beat);
    let task = Supervisor::default().task(Part::TcpListener, "", serve);
    supervise::request(task.ended());
    (stop, address)
}

async fn proxy(
    listener: TcpListener,
    upstream: Arc<Mutex<SocketAddr>>,
    mode: watch::Receiver<Mode>,
    connections: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        if *mode.borrow() == Mode::Refuse {
            continue;
        }
        let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (to, mut mode) = (*upstream.lock().unwrap(), mode.clone());
        supervise::request(async move {
            let stall = mode.clone();
            tokio::select! {
                () = forward(client, to, number, stall) => {}
                _ = mode.wait_for(|mode| *mode == Mode::Refuse) => {}
            }
        });
    }
}

async fn forward(
    mut client: TcpStream,
    to: SocketAddr,
    number: usize,
    mut mode: watch::Receiver<Mode>,
) {
    let Ok(mut server) = TcpStream::connect(to).await else {
        return;
    };
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    loop {
        let is_stalled = |mode: &Mode| matches!(mode, Mode::StallUpTo(last) if number <= *last);
        let (count, is_up) = tokio::select! {
            count = client.read(&mut up) => (count, true),
            count = server.read(&mut down) => (count, false),
        };
        let Ok(count @ 1..) = count else {
            return;
        };
        if mode.wait_for(|mode| !is_stalled(mode)).await.is_err() {
            return;
        }
        let written = if is_up {
            server.write_all(&up[..count]).await
        } else {
            client.write_all(&down[..count]).await
        };
        if written.is_err() {
            return;
        }
    }
}

/// What the parts of a node see of its end: without it, one that finds another gone while a test
/// drops them takes that for a failure, and ends the process.
struct Ending(Supervisor);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A node that watches.
pub(crate) struct Node {
    /// Dropped before what it is about.
    ending: Ending,
    pub(crate) cluster: Cluster,
    stop: watch::Sender<bool>,
}

impl Node {
    /// Begins with what the store has of the last run.
    pub(crate) fn start(api: &ApiServer, store: &SharedStore) -> Self {
        let last_known = LastKnown::load(store, api.url()).unwrap();
        let (stop, stopping) = watch::channel(false);
        let (config, store) = (registry_config("node-a"), Arc::clone(store));
        let supervisor = Supervisor::default();
        let cluster = kube::watch(
            api,
            config,
            store,
            last_known,
            &settings(),
            stopping,
            &supervisor,
        );
        Self {
            ending: Ending(supervisor),
            cluster,
            stop,
        }
    }

    pub(crate) async fn synced(&mut self) {
        let synced = self.cluster.synced.wait_for(Option::is_some);
        tokio::time::timeout(Duration::from_secs(20), synced)
            .await
            .expect("everything is heard in time")
            .unwrap();
    }

    /// Stops as the daemon does: first its end is stated, then each part is asked to end.
    pub(crate) async fn stop(self) {
        self.ending.0.stop();
        self.stop.send_replace(true);
        self.cluster.stored().await;
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Arc<Value>> {
        self.cluster
            .registry
            .get(Resource::Pod, "default", name)
            .ok()
    }

    /// Returns the label `app` of a pod.
    pub(crate) fn app(&self, name: &str) -> Option<String> {
        let pod = self.pod(name)?;
        pod["metadata"]["labels"]["app"].as_str().map(str::to_owned)
    }

    pub(crate) fn uid(&self, name: &str) -> Option<String> {
        let pod = self.pod(name)?;
        pod["metadata"]["uid"].as_str().map(str::to_owned)
    }

    /// Returns how often pods were listed, and how often that or a watch of them failed.
    pub(crate) fn pods_heard(&self) -> (u64, u64) {
        let figures = self.cluster.health.figures();
        let pods = figures.iter().find(|watch| watch.kind == "pods").unwrap();
        (pods.lists, pods.failures)
    }
}

/// Waits for a condition, for so long at most.
pub(crate) async fn within(what: &str, seconds: u64, mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(seconds), wait).await;
    assert!(in_time.is_ok(), "not within {seconds} s: {what}");
}

pub(crate) async fn soon(what: &str, check: impl FnMut() -> bool) {
    within(what, 10, check).await;
}

/// A server that answers each request, by its target, with a status and a body.
pub(crate) async fn answering(
    mut answer: impl FnMut(&str) -> (u16, Value) + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    supervise::request(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let Some(request) = request_head(&mut client).await else {
                continue;
            };
            let (status, body) = answer(request.split(' ').nth(1).unwrap_or_default());
            respond(&mut client, status, &body).await;
        }
    });
    address
}

/// Reads a request up to its body; `None` if the client ends before.
pub(crate) async fn request_head(client: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match client.read(&mut byte).await {
            Ok(1) => request.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&request).into_owned())
}

/// Answers a request; the connection ends with that.
pub(crate) async fn respond(client: &mut TcpStream, status: u16, body: &Value) {
    let body = format!("{body}\n");
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let _ = client.write_all(head.as_bytes()).await;
    let _ = client.write_all(body.as_bytes()).await;
}
