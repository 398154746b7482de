//! Batches: how many frames one call moves at most, and what a receive call brought.

/// Most frames that one receive or send call moves.
pub const MAX_BATCH: usize = 32;

/// What a receive call brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Frames, at the front of the batch.
    pub frames: usize,
    /// Frames that the kernel cut or could not describe; they are gone.
    pub bad: usize,
}
