//! Server-side apply: who set which field, and what follows from it.
//!
//! An object remembers in `metadata.managedFields` which fields each manager set, by applying a
//! configuration or by any other write. Who applies a configuration again takes away what it set
//! before and names no longer, unless somebody else set it too; who would change another's value
//! is refused, unless it insists. The rules are those of the API server
//! (`sigs.k8s.io/structured-merge-diff`, `k8s.io/apimachinery/pkg/util/managedfields`).
//!
//! | part | does |
//! |---|---|
//! | `field_set` | sets of fields and their form in `fieldsV1` |
//! | `typed` | fields of a value, differences, merging, taking away |
//! | `managers` | the entries of `managedFields` |
//! | `ownership` | what a write and an applied configuration change in them |

mod field_set;
mod managers;
mod ownership;
#[cfg(test)]
mod tests;
mod typed;

pub(super) use managers::Writer;
pub(super) use ownership::{Applied, applied, record};
