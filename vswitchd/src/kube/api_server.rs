//! Requests to the API server, each bounded in time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::AsyncBufReadExt as _;
use futures_util::io::Lines;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Request;
use kube::core::params::{GetParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::request::Error as RequestError;
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::{Value, json};

use super::source::Source;
use super::watched::Absence;
use crate::errors::chain;
use crate::objects::Resource;

/// How long the API server may take to begin a watch, and to answer what is short.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long it may take to send a page of a list: some megabytes.
const LIST_WITHIN: Duration = Duration::from_secs(30);

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What went wrong with the API server.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The kubeconfig cannot be used.
    #[error("read kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: Box<KubeconfigError>,
    },
    /// There is no kubeconfig, and this is no pod with a service account.
    #[error("no cluster.kubeconfig is set, and the service account of a pod cannot be used")]
    InCluster {
        /// Cause.
        source: Box<InClusterError>,
    },
    /// Credentials or certificates cannot be used.
    #[error("prepare the connection to {server}")]
    Client {
        /// The API server.
        server: String,
        /// Cause.
        source: Box<kube::Error>,
    },
    /// The request could not be put together.
    #[error("build a request")]
    Build {
        /// Cause.
        source: Box<RequestError>,
    },
    /// The request failed, or was refused.
    #[error("{doing}: {}", reason(source))]
    Request {
        /// What was asked for.
        doing: String,
        /// Cause.
        source: Box<kube::Error>,
    },
    /// The kind is not among what the API server says that it serves.
    #[error("the API server does not serve {kinds}")]
    NotServed {
        /// The resources that were looked for.
        kinds: String,
    },
    /// Nothing came in time.
    #[error("{doing}: no answer within {} s", within.as_secs())]
    Silent {
        /// What was asked for.
        doing: String,
        /// How long it was waited.
        within: Duration,
    },
    /// What came is not what the API sends.
    #[error("{doing}: the answer is not understood")]
    Answer {
        /// What was asked for.
        doing: String,
        /// Cause.
        source: serde_json::Error,
    },
    /// The connection broke.
    #[error("{doing}: the connection broke")]
    Broken {
        /// What was asked for.
        doing: String,
        /// Cause.
        source: std::io::Error,
    },
    /// An event of the watch says that something went wrong.
    #[error("{doing}: {message}")]
    Event {
        /// What was asked for.
        doing: String,
        /// HTTP status.
        code: u16,
        /// What the API server says.
        message: String,
    },
}

/// The API server's own words, without the `Debug` form that `kube` adds to them.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => {
            format!("HTTP status {}", status.code)
        }
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl KubeError {
    /// Returns whether the version that was asked for is no longer known: list again.
    pub(super) fn is_gone(&self) -> bool {
        self.status() == Some(410)
    }

    /// Returns whether the resource may be another one, or none, for this client.
    pub(super) fn is_refused(&self) -> bool {
        self.is_not_found() || self.is_forbidden()
    }

    /// Returns whether the object is another one by now than the request was about.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// Returns whether the path leads to nothing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    fn is_forbidden(&self) -> bool {
        self.status() == Some(403)
    }

    /// Returns whether the same request would be refused again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        // Too many requests, or too slow: RFC 6585 section 4, RFC 9110 section 15.5.9.
        let is_refusal = |status| (400..500).contains(&status) && status != 429 && status != 408;
        matches!(self, Self::Build { .. }) || self.status().is_some_and(is_refusal)
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Event { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Returns whether it says that the kind cannot be read here, whoever asks how often.
    pub(super) fn absence(&self) -> Option<Absence> {
        match self {
            Self::NotServed { .. } => Some(Absence::NotServed),
            _ if self.is_forbidden() => Some(Absence::Forbidden),
            _ => None,
        }
    }

    /// Says why nothing is heard. What concerns the connection is the same for every kind and does
    /// not name one; a refusal does.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Request { source, .. } if !matches!(source.as_ref(), kube::Error::Api(_)) => {
                chain(source.as_ref())
            }
            Self::Silent { within, .. } => format!("no answer within {} s", within.as_secs()),
            Self::Broken { source, .. } => format!("the connection broke: {}", chain(source)),
            // Its cause is the refusal once more, in `Debug` form.
            Self::Request { .. } => self.to_string(),
            other => chain(other),
        }
    }

    /// Returns whether another watch from the same version would meet the same again.
    pub(super) const fn is_of_content(&self) -> bool {
        matches!(self, Self::Answer { .. } | Self::Event { .. })
    }
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) metadata: PageMeta,
    #[serde(default)]
    pub(super) items: Vec<Value>,
}

/// Metadata of a page.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
enum Line {
    Added(Value),
    Modified(Value),
    Deleted(Value),
    Bookmark(Value),
    Error(Value),
}

/// An event of a watch.
#[derive(Debug)]
pub(super) enum Event {
    /// Added or changed.
    Present(Value),
    /// Deleted, or no longer selected.
    Gone(Value),
    /// Everything up to the version of this empty object was told.
    Bookmark(Value),
}

/// The API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    url: String,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Prepares connections as the kubeconfig says, or without one as the service account of the
    /// pod that this process runs in. Connects to nothing yet.
    ///
    /// # Errors
    /// [`KubeError`]: what cannot be used.
    pub async fn new(kubeconfig: Option<&Path>) -> Result<Self, KubeError> {
        let mut config = match kubeconfig {
            Some(path) => read_kubeconfig(path).await?,
            None => Config::incluster().map_err(|source| KubeError::InCluster {
                source: Box::new(source),
            })?,
        };
        config.connect_timeout = Some(CONNECT_WITHIN);
        // Watchers try again by themselves, and say so.
        config.default_retry = false;
        let url = config
            .cluster_url
            .to_string()
            .trim_end_matches('/')
            .to_owned();
        let client = Client::try_from(config).map_err(|source| KubeError::Client {
            server: url.clone(),
            source: Box::new(source),
        })?;
        Ok(Self { client, url })
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Gets a page of a list.
    pub(super) async fn list(
        &self,
        source: &Source,
        selector: Option<&str>,
        limit: u32,
        next: Option<String>,
    ) -> Result<Page, KubeError> {
        let doing = format!("list {}", source.plural);
        let params = ListParams {
            field_selector: selector.map(str::to_owned),
            limit: Some(limit),
            continue_token: next,
            ..ListParams::default()
        };
        let request = Request::new(source.path()).list(&params).map_err(build)?;
        let text = bounded(&doing, LIST_WITHIN, self.client.request_text(request)).await?;
        serde_json::from_str(&text).map_err(|source| KubeError::Answer { doing, source })
    }

    /// Returns whether the API server says that it serves a resource.
    pub(super) async fn serves(&self, source: &Source) -> Result<bool, KubeError> {
        let version = source.api_version();
        let doing = format!("discover {version}");
        let resources = if source.group.is_empty() {
            let core = self.client.list_core_api_resources(source.version);
            bounded(&doing, ANSWER_WITHIN, core).await?
        } else {
            let groups = self.client.list_api_groups();
            let groups = bounded("discover API groups", ANSWER_WITHIN, groups).await?;
            let mut versions = groups.groups.iter().flat_map(|group| &group.versions);
            // Asking for one that is not listed is answered as an error of any other kind is.
            if !versions.any(|known| known.group_version == version) {
                return Ok(false);
            }
            let group = self.client.list_api_group_resources(&version);
            bounded(&doing, ANSWER_WITHIN, group).await?
        };
        let mut resources = resources.resources.iter();
        Ok(resources.any(|resource| resource.name == source.plural))
    }

    /// Begins a watch behind a version; the API server ends it by itself after `timeout`.
    pub(super) async fn watch(
        &self,
        source: &Source,
        selector: Option<&str>,
        version: &str,
        timeout: Duration,
    ) -> Result<Events, KubeError> {
        let doing = format!("watch {}", source.plural);
        let params = WatchParams {
            field_selector: selector.map(str::to_owned),
            timeout: u32::try_from(timeout.as_secs()).ok(),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Request::new(source.path())
            .watch(&params, version)
            .map_err(build)?;
        let body = bounded(&doing, ANSWER_WITHIN, self.client.request_stream(request)).await?;
        let body: Box<dyn futures_util::AsyncBufRead + Send + Unpin> = Box::new(Box::pin(body));
        Ok(Events {
            doing,
            lines: body.lines(),
        })
    }

    /// Says in the Node's status that its network works.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn set_network_available(&self, node: &str, now: &str) -> Result<(), KubeError> {
        let doing = format!("patch the status of node {node}");
        let condition = json!({
            "type": "NetworkUnavailable", "status": "False", "reason": "VswitchIsUp",
            "message": "vswitchd is ready on this node",
            "lastTransitionTime": now, "lastHeartbeatTime": now,
        });
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let request = Request::new("/api/v1/nodes")
            .patch_subresource("status", node, &PatchParams::default(), &patch)
            .map_err(build)?;
        bounded(&doing, ANSWER_WITHIN, self.client.request_text(request))
            .await
            .map(drop)
    }

    /// Returns an object without namespace whole, in the version in which it is known here; `None`
    /// if there is none.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn object(&self, resource: Resource, name: &str) -> Result<Option<Value>, KubeError> {
        let doing = format!("get {} {name}", resource.info().kind);
        let request = Request::new(Source::of(resource.info()).path())
            .get(name, &GetParams::default())
            .map_err(build)?;
        match bounded(&doing, ANSWER_WITHIN, self.client.request(request)).await {
            Err(error) if error.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Changes the status of an object without namespace by a merge patch.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn patch_status(
        &self,
        resource: Resource,
        name: &str,
        patch: &Value,
    ) -> Result<(), KubeError> {
        let doing = format!("patch the status of {} {name}", resource.info().kind);
        let request = Request::new(Source::of(resource.info()).path())
            .patch_subresource(
                "status",
                name,
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .map_err(build)?;
        bounded(&doing, ANSWER_WITHIN, self.client.request_text(request))
            .await
            .map(drop)
    }

    /// Writes a new Event; returns false if there is one of its name.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn create_event(&self, event: &Value) -> Result<bool, KubeError> {
        let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
        let doing = format!("create an Event in namespace {namespace}");
        let body = event.to_string().into_bytes();
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let request = Request::new(path)
            .create(&PostParams::default(), body)
            .map_err(build)?;
        match bounded(&doing, ANSWER_WITHIN, self.client.request_text(request)).await {
            Err(error) if error.is_conflict() => Ok(false),
            written => written.map(|_| true),
        }
    }

    /// Changes an Event by a merge patch; returns false if it is gone.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn patch_event(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<bool, KubeError> {
        let doing = format!("patch Event {namespace}/{name}");
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let request = Request::new(path)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .map_err(build)?;
        match bounded(&doing, ANSWER_WITHIN, self.client.request_text(request)).await {
            Err(error) if error.is_not_found() => Ok(false),
            written => written.map(|_| true),
        }
    }

    /// Sets annotations of a Node; `None` removes one.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn annotate_node(
        &self,
        node: &str,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<(), KubeError> {
        let doing = format!("patch the annotations of node {node}");
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let request = Request::new("/api/v1/nodes")
            .patch(node, &PatchParams::default(), &patch)
            .map_err(build)?;
        bounded(&doing, ANSWER_WITHIN, self.client.request_text(request))
            .await
            .map(drop)
    }
}

/// The lines of a running watch.
pub(super) struct Events {
    doing: String,
    lines: Lines<Box<dyn futures_util::AsyncBufRead + Send + Unpin>>,
}

impl Events {
    /// Waits for the next event; `None` when the API server has ended the watch. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, KubeError> {
        use futures_util::StreamExt as _;
        let Some(line) = self.lines.next().await else {
            return Ok(None);
        };
        let doing = || self.doing.clone();
        let line = line.map_err(|source| KubeError::Broken {
            doing: doing(),
            source,
        })?;
        let line = serde_json::from_str(&line).map_err(|source| KubeError::Answer {
            doing: doing(),
            source,
        })?;
        Ok(Some(match line {
            Line::Added(object) | Line::Modified(object) => Event::Present(object),
            Line::Deleted(object) => Event::Gone(object),
            Line::Bookmark(object) => Event::Bookmark(object),
            Line::Error(status) => {
                let code = status["code"]
                    .as_u64()
                    .and_then(|code| code.try_into().ok());
                let message = status["message"]
                    .as_str()
                    .unwrap_or("an error without a message");
                return Err(KubeError::Event {
                    doing: doing(),
                    code: code.unwrap_or(0),
                    message: message.to_owned(),
                });
            }
        }))
    }

    /// Says that nothing came for too long.
    pub(super) fn silent(&self, within: Duration) -> KubeError {
        KubeError::Silent {
            doing: self.doing.clone(),
            within,
        }
    }
}

async fn read_kubeconfig(path: &Path) -> Result<Config, KubeError> {
    let fail = |source| KubeError::Kubeconfig {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(fail)?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(fail)
}

fn build(source: RequestError) -> KubeError {
    KubeError::Build {
        source: Box::new(source),
    }
}

async fn bounded<T>(
    doing: &str,
    within: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubeError> {
    match tokio::time::timeout(within, request).await {
        Ok(answer) => answer.map_err(|source| KubeError::Request {
            doing: doing.to_owned(),
            source: Box::new(source),
        }),
        Err(_) => Err(KubeError::Silent {
            doing: doing.to_owned(),
            within,
        }),
    }
}
