//! Failures of an object's validation, worded as the API server does.

use std::fmt::Display;

use serde_json::Value;

use super::StatusCause;

/// Collects all that is wrong with an object.
#[derive(Debug, Default)]
pub(super) struct Causes(Vec<StatusCause>);

impl Causes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_list(self) -> Vec<StatusCause> {
        self.0
    }

    pub(super) fn add(&mut self, reason: &'static str, field: &str, message: String) {
        self.0.push(StatusCause {
            reason,
            field: field.to_owned(),
            message,
        });
    }

    pub(super) fn invalid(&mut self, field: &str, value: &Value, why: impl Display) {
        self.add(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {value}: {why}"),
        );
    }

    pub(super) fn required(&mut self, field: &str, why: &str) {
        let colon = if why.is_empty() { "" } else { ": " };
        self.add(
            "FieldValueRequired",
            field,
            format!("Required value{colon}{why}"),
        );
    }

    pub(super) fn forbidden(&mut self, field: &str, why: &str) {
        self.add("FieldValueForbidden", field, format!("Forbidden: {why}"));
    }

    pub(super) fn duplicate(&mut self, field: &str, value: &Value) {
        self.add(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {value}"),
        );
    }

    pub(super) fn not_supported(&mut self, field: &str, value: &Value, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let message = format!(
            "Unsupported value: {value}: supported values: {}",
            supported.join(", ")
        );
        self.add("FieldValueNotSupported", field, message);
    }
}
