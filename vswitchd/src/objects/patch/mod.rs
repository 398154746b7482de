//! Patches: JSON (RFC 6902), merge (RFC 7386) and strategic merge, as the API server applies them.

mod patched;
mod strategic;
#[cfg(test)]
mod tests;

pub(super) use patched::patched;
