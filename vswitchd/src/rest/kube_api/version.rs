//! resourceVersion of an object, as a number.

use serde_json::Value;

/// Returns the version of an object.
pub(super) fn version_of(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    text.parse().unwrap_or(0)
}
