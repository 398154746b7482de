//! What is written over the API: objects, ports, flows.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use vswitch_api::client::{Client, ClientError};
use vswitch_tests::Daemon;

use crate::datagrams::{Datagrams, Gate};
use crate::random::Random;
use crate::{Count, Expected, Written, get};

/// How many of a kind there may be.
const OF_A_KIND: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Policy,
    Pod,
    Service,
    Flow,
    Vm,
    Mirror,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Policy,
        Self::Pod,
        Self::Service,
        Self::Flow,
        Self::Vm,
        Self::Mirror,
    ];

    /// Where they are made.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Policy => "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            Self::Pod => "/api/v1/namespaces/default/pods",
            Self::Service => "/api/v1/namespaces/default/services",
            Self::Flow => "/v1/flows",
            Self::Vm | Self::Mirror => "/v1/ports",
        }
    }

    /// Where they are listed as they were written.
    const fn list_path(self) -> &'static str {
        match self {
            Self::Flow => "/v1/admin-flows",
            _ => self.path(),
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Policy => "chaos-policy-",
            Self::Pod => "chaos-pod-",
            Self::Service => "chaos-service-",
            Self::Flow => "chaos-flow-",
            Self::Vm => "cvm",
            Self::Mirror => "cmirror",
        }
    }

    /// Whether there is something to it that can be changed.
    const fn may_change(self) -> bool {
        !matches!(self, Self::Vm | Self::Mirror)
    }

    fn value(self, number: u64) -> String {
        match self {
            Self::Service | Self::Flow => (1_000 + number).to_string(),
            Self::Vm | Self::Mirror => "there".to_owned(),
            Self::Policy | Self::Pod => format!("v{number}"),
        }
    }

    /// An object with a value in it, which is also the merge patch that changes it.
    fn body(self, name: &str, value: &str) -> Value {
        match self {
            Self::Policy => json!({"metadata": {"name": name},
                "spec": {"podSelector": {"matchLabels": {"app": value}}}}),
            Self::Pod => json!({"metadata": {"name": name, "labels": {"version": value}},
                "spec": {"containers": [{"name": "c", "image": "c"}]}}),
            Self::Service => json!({"metadata": {"name": name},
                "spec": {"ports": [{"port": value.parse::<u16>().unwrap()}]}}),
            Self::Flow => json!({"name": name, "priority": 9, "actions": "drop",
                "match": format!("tcp,tp_dst={value}")}),
            Self::Vm => json!({"kind": "vm", "ifname": name}),
            Self::Mirror => json!({"kind": "mirror", "ifname": name}),
        }
    }

    /// Name and value of what a list holds; `None` for what is of another kind.
    fn read(self, item: &Value) -> Option<(String, String)> {
        let text = |at: &str| item.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let name = match self {
            Self::Policy | Self::Pod | Self::Service => text("/metadata/name"),
            Self::Flow => text("/name"),
            Self::Vm | Self::Mirror => text("/ifname"),
        };
        let name = name.filter(|name| name.starts_with(self.prefix()))?;
        let value = match self {
            Self::Policy => text("/spec/podSelector/matchLabels/app").unwrap(),
            Self::Pod => text("/metadata/labels/version").unwrap(),
            Self::Service => item["spec"]["ports"][0]["port"].to_string(),
            Self::Flow => {
                let matches = text("/match").unwrap();
                matches.rsplit_once('=').unwrap().1.to_owned()
            }
            Self::Vm | Self::Mirror => "there".to_owned(),
        };
        Some((name, value))
    }
}

/// Everything of one kind that is written.
pub(crate) struct Objects {
    kind: Kind,
    all: Vec<Expected>,
    /// The first policy closes it.
    gate: Option<Arc<Gate>>,
}

impl Objects {
    pub(crate) fn new(kind: Kind, datagrams: &Datagrams) -> Self {
        let names = (0..OF_A_KIND).map(|number| format!("{}{number}", kind.prefix()));
        Self {
            kind,
            all: names.map(Expected::absent).collect(),
            gate: (kind == Kind::Policy).then(|| Arc::clone(&datagrams.gate)),
        }
    }

    /// Writes until the daemon is gone.
    pub(crate) fn write(&mut self, client: &Client, mut random: Random) -> Count {
        let mut count = Count::default();
        loop {
            let at = random.index(self.all.len());
            let written = self.write_one(client, at, &mut random);
            count.note(&written);
            if matches!(written, Written::Unanswered) {
                return count;
            }
        }
    }

    fn write_one(&mut self, client: &Client, at: usize, random: &mut Random) -> Written {
        let kind = self.kind;
        let gate = self.gate.as_ref().filter(|_| at == 0);
        let expected = &mut self.all[at];
        let name = expected.name.clone();
        let is_there = expected.now().is_some();
        let goes = is_there && (!kind.may_change() || gate.is_some() || random.below(2) == 0);
        let value = match gate {
            Some(_) => "gated".to_owned(),
            None => kind.value(random.below(50)),
        };
        let item = format!("{}/{name}", kind.path());
        let body = kind.body(&name, &value);
        let (method, path, body) = if goes {
            if let Some(gate) = gate {
                gate.open();
            }
            ("DELETE", item.as_str(), None)
        } else if is_there && kind != Kind::Flow {
            ("PATCH", item.as_str(), Some(body))
        } else {
            ("POST", kind.path(), Some(body))
        };
        let value = (!goes).then_some(value);
        let written = request(client, method, path, body.as_ref());
        match &written {
            Written::Acknowledged => {
                if let (Some(gate), Some(_)) = (gate, &value) {
                    gate.close();
                }
                expected.acknowledged(value);
            }
            Written::Unanswered => expected.unanswered(value),
        }
        written
    }

    /// Compares with what is there after a start.
    pub(crate) fn look(&mut self, daemon: &Daemon) {
        let path = self.kind.list_path();
        let items = get(daemon, path);
        let there = items.iter().filter_map(|item| self.kind.read(item));
        let mut there: BTreeMap<String, String> = there.collect();
        for expected in &mut self.all {
            expected.found(there.remove(&expected.name));
        }
        assert!(there.is_empty(), "nobody wrote {there:?}");
        if let Some(gate) = &self.gate
            && self.all[0].now().is_some()
        {
            gate.close();
        }
    }
}

fn request(client: &Client, method: &str, path: &str, body: Option<&Value>) -> Written {
    let kind = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let text = body.map(Value::to_string).unwrap_or_default();
    match client.request(method, path, &[("Content-Type", kind)], text.as_bytes()) {
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.body);
            let status = answer.status;
            assert!(answer.is_success(), "{method} {path}: {status} {text}");
            Written::Acknowledged
        }
        Err(ClientError::Url { url, problem }) => panic!("{url}: {problem}"),
        Err(_) => Written::Unanswered,
    }
}
