//! What is to be said of an object.

use serde_json::{Value, json};

/// Longest message, in bytes: `NoteLengthLimit` of the API server, for Events of the newer group.
pub const MAX_MESSAGE: usize = 1_024;

/// The object that an Event is about (core/v1 `ObjectReference`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// API version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; empty if it is not known.
    pub uid: String,
}

impl Regarding {
    /// Returns the reference to an object of a registry, as the API server that has it stores it.
    #[must_use]
    pub fn object(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let stored = |field: &str| object["stored"][field].as_str().map(str::to_owned);
        let metadata = &object["metadata"];
        Self {
            api_version: stored("apiVersion").unwrap_or_else(|| text(&object["apiVersion"])),
            kind: text(&object["kind"]),
            namespace: text(&metadata["namespace"]),
            name: stored("name").unwrap_or_else(|| text(&metadata["name"])),
            uid: text(&metadata["uid"]),
        }
    }

    pub(super) fn to_value(&self) -> Value {
        let fields = [
            ("apiVersion", &self.api_version),
            ("kind", &self.kind),
            ("namespace", &self.namespace),
            ("name", &self.name),
            ("uid", &self.uid),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        given
            .map(|(field, value)| (field.to_owned(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// Returns the namespace that its Events live in: `default` for objects of the cluster.
    pub(super) fn events_namespace(&self) -> &str {
        match self.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        }
    }
}

/// `type` of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the API's")]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Who notes the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Writers {
    /// This node alone, e.g. of its own pods.
    ThisNode,
    /// Every node: one of them writes the Event.
    EveryNode,
}

/// What is to be said of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// The object.
    pub regarding: Regarding,
    /// Type.
    pub event_type: EventType,
    /// Why, as one word in `CamelCase`, for programs.
    pub reason: &'static str,
    /// What, for people; what is beyond [`MAX_MESSAGE`] is cut off.
    pub message: String,
    /// Who notes it.
    pub writers: Writers,
}

impl Note {
    /// Returns it with a message that is not too long.
    pub(super) fn cut(mut self) -> Self {
        cut(&mut self.message);
        self
    }
}

/// Cuts off what a message is too long by.
pub(super) fn cut(message: &mut String) {
    const MARK: &str = "…";
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE - MARK.len()));
        message.push_str(MARK);
    }
}
