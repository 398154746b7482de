//! What a container runtime writes: ADD and DEL, by the shim.

use serde_json::Value;
use vswitch_tests::{Daemon, Pod};

use crate::random::Random;
use crate::{Count, Expected, Written, get};

const CONTAINERS: usize = 3;

struct Container {
    pod: Pod,
    /// Its addresses.
    expected: Expected,
}

pub(crate) struct Containers {
    all: Vec<Container>,
    next_id: u64,
}

impl Containers {
    /// Makes the namespaces of all.
    pub(crate) fn new(daemon: &Daemon) -> Self {
        let all = (0..CONTAINERS).map(|number| {
            let name = format!("container-{number}");
            Container {
                pod: Pod::named(&name).prepare(daemon).unwrap(),
                expected: Expected::absent(name),
            }
        });
        Self {
            all: all.collect(),
            next_id: 0,
        }
    }

    /// Calls until the daemon is gone.
    pub(crate) fn write(&mut self, mut random: Random) -> Count {
        let mut count = Count::default();
        loop {
            let container = &mut self.all[random.index(CONTAINERS)];
            let written = match container.expected.now() {
                None => {
                    // A runtime never uses an id again.
                    self.next_id += 1;
                    container.pod.container_id = format!("chaos-{}", self.next_id);
                    container.add()
                }
                Some(_) => container.remove(),
            };
            count.note(&written);
            if matches!(written, Written::Unanswered) {
                return count;
            }
        }
    }

    /// Compares with what is there after a start.
    pub(crate) fn look(&mut self, daemon: &Daemon) {
        let attachments = get(daemon, "/v1/attachments");
        for container in &mut self.all {
            let id = container.pod.container_id.as_str();
            let mut found = attachments.iter();
            let found = found.find(|attachment| attachment["container_id"] == id);
            container.look(found);
        }
    }

    /// Does what a runtime does about an ADD or a DEL that was not answered: DEL.
    pub(crate) fn settle(&mut self, daemon: &Daemon) {
        for container in &mut self.all {
            if container.expected.possible.len() > 1 {
                container.pod.cni("DEL").unwrap().success().unwrap();
                container.expected.acknowledged(None);
            }
        }
        self.look(daemon);
    }
}

/// An ADD without an answer: no address that it might have is known.
const SOME: &str = "some address";

impl Container {
    fn add(&mut self) -> Written {
        match self.pod.add() {
            Ok(()) => {
                let address = self.pod.ip().to_string();
                self.expected.acknowledged(Some(address));
                Written::Acknowledged
            }
            Err(error) => {
                is_gone(&format!("{error:#}"));
                self.expected.unanswered(Some(SOME.to_owned()));
                Written::Unanswered
            }
        }
    }

    fn remove(&mut self) -> Written {
        let output = self.pod.cni("DEL").unwrap();
        if output.code == Some(0) {
            self.expected.acknowledged(None);
            return Written::Acknowledged;
        }
        is_gone(&output.stdout);
        self.expected.unanswered(None);
        Written::Unanswered
    }

    fn look(&mut self, found: Option<&Value>) {
        let address = found.map(|found| {
            let address = found["addresses"][0].as_str().unwrap();
            address.split('/').next().unwrap().to_owned()
        });
        let possible = &self.expected.possible;
        let is_expected = match (&address, possible.as_slice()) {
            (Some(_), possible) if possible.contains(&Some(SOME.to_owned())) => true,
            (_, possible) => possible.contains(&address),
        };
        let id = &self.pod.container_id;
        assert!(
            is_expected,
            "{id}: {address:?} is there, {possible:?} was answered"
        );
        if let ([Some(_)], Some(_)) = (possible.as_slice(), &address) {
            self.pod.cni("CHECK").unwrap().success().unwrap();
        }
    }
}

/// What the shim says when nobody answers: to try again.
fn is_gone(error: &str) {
    let says = ["vswitchd is not", "unreachable", "\"code\":11"];
    assert!(says.iter().any(|text| error.contains(text)), "{error}");
}
