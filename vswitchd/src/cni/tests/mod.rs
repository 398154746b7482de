//! The service with fakes around it. `world` holds the fakes, the other modules the tests.

mod add;
mod delegated;
mod hostile;
mod lifecycle;
mod world;
