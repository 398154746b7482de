//! Events of several nodes at one API server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use vswitch_api::v1::FlowRecord;
use vswitchd::events::{self, Destination, EventType, Note, Recorder, Regarding, Writers};
use vswitchd::flow_records::Round;
use vswitchd::objects::Resource;
use vswitchd::supervise::{self, Part, Supervisor, Task};

use crate::kit::{Hub, api_at, request_head, respond, soon, within};

/// What an API server knows of Events.
#[derive(Default)]
struct Events {
    /// By name.
    there: BTreeMap<String, Value>,
    /// Method and answer of each request.
    requests: Vec<(String, u16)>,
    /// Status that refuses all of them.
    refuses: Option<u16>,
}

impl Events {
    fn answer(&mut self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let path = target.split('?').next().unwrap_or_default();
        let code = match self.refuses {
            Some(code) => code,
            None => self.write(method, path, body),
        };
        self.requests.push((method.to_owned(), code));
        let status = json!({"kind": "Status", "status": "Failure", "message": "no", "code": code});
        (code, if code < 300 { body.clone() } else { status })
    }

    fn write(&mut self, method: &str, path: &str, body: &Value) -> u16 {
        let all = "/api/v1/namespaces/default/events";
        if method == "POST" && path == all {
            let name = body["metadata"]["name"].as_str().unwrap().to_owned();
            if self.there.contains_key(&name) {
                return 409;
            }
            self.there.insert(name, body.clone());
            return 201;
        }
        assert_eq!(method, "PATCH");
        let name = path.strip_prefix(all).unwrap().trim_start_matches('/');
        let Some(event) = self.there.get_mut(name) else {
            return 404;
        };
        for (field, value) in body.as_object().unwrap() {
            event[field] = value.clone();
        }
        200
    }
}

type Server = Arc<Mutex<Events>>;

async fn server() -> (Server, SocketAddr) {
    let events = Server::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let of_server = Arc::clone(&events);
    supervise::request(async move {
        while let Ok((client, _)) = listener.accept().await {
            serve(client, &of_server).await;
        }
    });
    (events, address)
}

async fn serve(mut client: TcpStream, events: &Server) {
    let Some(head) = request_head(&mut client).await else {
        return;
    };
    let lower = head.to_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |text| text.parse().unwrap())];
    client.read_exact(&mut body).await.unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let body: Value = serde_json::from_slice(&body).unwrap();
    let (code, answer) = events.lock().unwrap().answer(method, target, &body);
    respond(&mut client, code, &answer).await;
}

/// A node that records; the task ends with it.
async fn node(name: &str, address: SocketAddr) -> (Recorder, Supervisor, Task) {
    let (recorder, inbox) = events::channel();
    let destination = Destination::ApiServer(api_at(address).await);
    let (supervisor, name) = (Supervisor::default(), name.to_owned());
    let task = supervisor.task(Part::EventRecorder, "", move |beat| {
        events::follow(inbox, destination, name, beat)
    });
    (recorder, supervisor, task)
}

fn note(message: &str) -> Note {
    Note {
        regarding: Regarding {
            api_version: "crd.projectcalico.org/v1".to_owned(),
            kind: "GlobalNetworkPolicy".to_owned(),
            namespace: String::new(),
            name: "default.guard".to_owned(),
            uid: "u1".to_owned(),
        },
        event_type: EventType::Warning,
        reason: "NotEnforced",
        message: message.to_owned(),
        writers: Writers::EveryNode,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_note_the_same_write_one_event_and_one_of_them_counts_it_up() {
    let (server, address) = server().await;
    let (a, ending_a, _task_a) = node("node-a", address).await;
    let (b, ending_b, _task_b) = node("node-b", address).await;
    a.note(note("part"));
    soon("it is written", || server.lock().unwrap().there.len() == 1).await;
    b.note(note("part"));
    soon("the other one finds it", || {
        server.lock().unwrap().requests.len() == 2
    })
    .await;
    a.note(note("part"));
    soon("it counts up", || {
        server.lock().unwrap().requests.len() == 3
    })
    .await;
    {
        let server = server.lock().unwrap();
        let event = server.there.values().next().unwrap();
        assert_eq!((&event["count"], server.there.len()), (&json!(2), 1));
        assert_eq!(event["source"]["host"], "node-a");
        let expected = [("POST", 201), ("POST", 409), ("PATCH", 200)];
        assert_eq!(
            server.requests,
            expected.map(|(method, code)| (method.to_owned(), code))
        );
    }
    // The API server forgets it: whoever notes it next writes it anew.
    server.lock().unwrap().there.clear();
    b.note(note("part"));
    soon("it is written anew", || {
        server.lock().unwrap().there.len() == 1
    })
    .await;
    // The one before counts at it: it has the same name.
    a.note(note("part"));
    soon("it counts up", || {
        server.lock().unwrap().requests.len() == 5
    })
    .await;
    let requests = server.lock().unwrap().requests.clone();
    let last: Vec<u16> = requests[3..].iter().map(|of| of.1).collect();
    assert_eq!(last, [201, 200]);
    ending_a.stop();
    ending_b.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_refuses_events_is_not_asked_again_for_the_same() {
    let (server, address) = server().await;
    server.lock().unwrap().refuses = Some(403);
    let (recorder, ending, _task) = node("node-a", address).await;
    recorder.note(note("part"));
    recorder.note(note("other"));
    soon("both are tried", || {
        server.lock().unwrap().requests.len() == 2
    })
    .await;
    server.lock().unwrap().refuses = None;
    recorder.note(note("part"));
    soon("it is written", || server.lock().unwrap().there.len() == 1).await;
    let requests = server.lock().unwrap().requests.clone();
    let codes: Vec<u16> = requests.iter().map(|of| of.1).collect();
    assert_eq!(codes, [403, 403, 201]);
    let server = server.lock().unwrap();
    let count = &server.there.values().next().unwrap()["count"];
    assert_eq!(*count, 2, "with what was not written");
    ending.stop();
}

/// A record of a packet from client to server.
fn denied(port: u16) -> FlowRecord {
    let end = |name: &str, address: &str| json!({"address": address, "pod": name});
    serde_json::from_value(json!({
        "node": "node-a", "verdict": "denied", "reason": "policy_ingress", "direction": "ingress",
        "source": end("default/client", "10.0.0.2"),
        "destination": end("default/server", "10.0.0.3"),
        "protocol": "TCP", "port": port, "policies": ["default/guard"],
        "packets": 3, "connections": 0,
        "first": "2026-01-31T03:11:58Z", "last": "2026-01-31T03:12:07Z"
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_denied_pairs_are_a_few_writes_of_events_that_count_all_packets() {
    let (server, address) = server().await;
    let (recorder, ending, _task) = node("node-a", address).await;
    let hub = Hub::start().await;
    for name in ["client", "server"] {
        hub.pod(name, "node-a", &json!({"app": name}));
    }
    let (records, heard) = broadcast::channel(64);
    let registry = Arc::clone(&hub.registry);
    let follower = Supervisor::default();
    let _follow = follower.task(Part::DeniedPods, "", move |beat| {
        events::follow_denied(heard, registry, recorder, beat)
    });
    let all = Round {
        before: 0,
        records: (1..=10_000).map(denied).collect(),
    };
    records.send(Arc::new(all)).unwrap();
    // Ten kinds of connections and all others, on either end.
    within("all are written", 60, || {
        server.lock().unwrap().there.len() == 22
    })
    .await;
    let server = server.lock().unwrap();
    let requests = server.requests.iter();
    let requests: Vec<(&str, u16)> = requests.map(|(of, code)| (of.as_str(), *code)).collect();
    assert_eq!(requests, [("POST", 201); 22]);
    for name in ["client", "server"] {
        let events = server.there.values();
        let of_pod = events.filter(|event| event["involvedObject"]["name"] == name);
        let of_pod: Vec<&Value> = of_pod.collect();
        let counts = of_pod.iter().map(|event| event["count"].as_u64().unwrap());
        assert_eq!((of_pod.len(), counts.sum::<u64>()), (11, 30_000), "{name}");
        let pod = hub.registry.get(Resource::Pod, "default", name).unwrap();
        for event in of_pod {
            assert_eq!(event["involvedObject"]["uid"], pod["metadata"]["uid"]);
            let known = [&event["type"], &event["reason"]];
            assert_eq!(known, ["Warning", "PolicyDenied"]);
        }
    }
    follower.stop();
    ending.stop();
}
