//! An object with a patch applied.

use serde_json::Value;

use super::super::schema::Type;
use super::super::{PatchKind, StatusError};
use super::strategic;

/// Returns the object of this type with the patch applied.
///
/// # Errors
/// 400 for a patch that is none, 422 for one that does not fit the object.
pub(in crate::objects) fn patched(
    kind: PatchKind,
    of: &Type,
    old: &Value,
    patch: &Value,
) -> Result<Value, StatusError> {
    let mut object = old.clone();
    match kind {
        PatchKind::Json => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| StatusError::bad_request(format!("not a JSON patch: {error}")))?;
            apply_operations(&mut object, &patch)?;
        }
        PatchKind::Merge => json_patch::merge(&mut object, as_object(patch)?),
        PatchKind::StrategicMerge => {
            strategic::merge(of, &mut object, as_object(patch)?)
                .map_err(|fault| StatusError::bad_request(format!("the patch: {fault}")))?;
        }
    }
    if !object.is_object() {
        return Err(StatusError::bad_request("the patch leaves no object"));
    }
    Ok(object)
}

/// Most operations of a JSON patch; each copy nests the object deeper at worst.
pub(super) const MAX_OPERATIONS: usize = 1_000;

/// Largest object on the way, bytes: an operation that copies the object into itself doubles it.
const MAX_BYTES: usize = 3 << 20;

fn apply_operations(object: &mut Value, patch: &json_patch::Patch) -> Result<(), StatusError> {
    let refuse = |why: &dyn std::fmt::Display| {
        let message =
            format!("the server rejected our request due to an error in our request: {why}");
        StatusError::plain(422, "Invalid", message)
    };
    if patch.len() > MAX_OPERATIONS {
        let message = format!("a JSON patch may have at most {MAX_OPERATIONS} operations");
        return Err(StatusError::plain(413, "RequestEntityTooLarge", message));
    }
    for operation in patch.iter() {
        json_patch::patch(object, std::slice::from_ref(operation))
            .map_err(|error| refuse(&error))?;
        let copies = matches!(operation, json_patch::PatchOperation::Copy(_));
        if copies && object.to_string().len() > MAX_BYTES {
            return Err(refuse(&"the patch makes the object too large"));
        }
    }
    Ok(())
}

fn as_object(patch: &Value) -> Result<&Value, StatusError> {
    if patch.is_object() {
        return Ok(patch);
    }
    Err(StatusError::bad_request("the patch is not a JSON object"))
}
