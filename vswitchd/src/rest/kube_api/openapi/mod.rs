//! OpenAPI: the served kinds with their schemas, for `kubectl explain`, `diff` and `--dry-run`.
//!
//! Version 3 is JSON, a document for each group; version 2 one document in protobuf
//! (`gnostic.openapi.v2.Document`), for clients of the time before.

mod documents;
mod version_2;

pub(super) use documents::{core, group, version_2, version_3};
