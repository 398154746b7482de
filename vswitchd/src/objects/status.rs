//! Refusals as the Kubernetes API words them (meta/v1 `Status`).

use serde_json::{Value, json};

use super::ResourceInfo;

/// One thing that is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCause {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldValueNotSupported`, …
    pub reason: &'static str,
    /// Path of the field.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusError {
    /// HTTP status.
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `BadRequest`, `Expired`, …
    pub reason: &'static str,
    /// One line.
    pub message: String,
    /// details.group; empty if none.
    pub group: String,
    /// details.kind (resource or kind, as the API server words it); empty if none.
    pub kind: String,
    /// details.name; empty if none.
    pub name: String,
    /// details.causes.
    pub causes: Vec<StatusCause>,
}

impl StatusError {
    /// Returns a refusal about nothing in particular.
    #[must_use]
    pub fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            group: String::new(),
            kind: String::new(),
            name: String::new(),
            causes: Vec::new(),
        }
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    /// 500.
    #[must_use]
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::plain(
            500,
            "InternalError",
            format!("Internal error occurred: {error}"),
        )
    }

    /// 410: the version asked for is no longer remembered.
    #[must_use]
    pub fn expired(version: u64) -> Self {
        Self::plain(
            410,
            "Expired",
            format!("too old resource version: {version}"),
        )
    }

    /// 404.
    #[must_use]
    pub fn not_found(info: &ResourceInfo, name: &str) -> Self {
        Self::about(
            404,
            "NotFound",
            info,
            name,
            format!("{} not found", quoted(info, name)),
        )
    }

    /// 409 of a create.
    #[must_use]
    pub fn already_exists(info: &ResourceInfo, name: &str) -> Self {
        let message = format!("{} already exists", quoted(info, name));
        Self::about(409, "AlreadyExists", info, name, message)
    }

    /// 409 of a write.
    #[must_use]
    pub fn conflict(info: &ResourceInfo, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {}: {why}",
            quoted(info, name)
        );
        Self::about(409, "Conflict", info, name, message)
    }

    /// 403.
    #[must_use]
    pub fn forbidden(info: &ResourceInfo, name: &str, why: &str) -> Self {
        let message = format!("{} is forbidden: {why}", quoted(info, name));
        Self::about(403, "Forbidden", info, name, message)
    }

    /// 422: all that is wrong with an object.
    #[must_use]
    pub fn invalid(info: &ResourceInfo, name: &str, causes: Vec<StatusCause>) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let kind = qualified(info.kind, info.group);
        let message = format!("{kind} \"{name}\" is invalid: {list}");
        let mut status = Self::about(422, "Invalid", info, name, message);
        info.kind.clone_into(&mut status.kind);
        status.causes = causes;
        status
    }

    fn about(
        code: u16,
        reason: &'static str,
        info: &ResourceInfo,
        name: &str,
        message: String,
    ) -> Self {
        Self {
            group: info.group.to_owned(),
            kind: info.plural.to_owned(),
            name: name.to_owned(),
            ..Self::plain(code, reason, message)
        }
    }

    /// Returns the `Status` object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut details = serde_json::Map::new();
        for (key, text) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
        ] {
            if !text.is_empty() {
                details.insert(key.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                json!({"reason": cause.reason, "message": cause.message, "field": cause.field})
            });
            details.insert("causes".to_owned(), causes.collect());
        }
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": details, "code": self.code,
        })
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

/// `networkpolicies.networking.k8s.io "x"`.
fn quoted(info: &ResourceInfo, name: &str) -> String {
    format!("{} \"{name}\"", qualified(info.plural, info.group))
}

impl std::fmt::Display for StatusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StatusError {}
