//! The service over attachments in memory. `world` holds the calls, the other modules the tests.

mod add;
mod delegated;
mod hostile;
mod lifecycle;
mod world;
