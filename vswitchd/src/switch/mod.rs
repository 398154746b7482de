//! The switch as its users see it: ports that come and go, flows of operators, explanations.
//!
//! Ties the datapath, the workers and the reconciler together; `cni`, `rest` and `app` drive it.

mod admin_flows;
mod device;
mod ends;
mod error;
mod explain;
mod gateway;
mod host_events;
mod operators;
mod running;
mod watch;

pub use admin_flows::AdminFlowError;
pub use device::{Device, DeviceOpener};
pub use ends::Ends;
pub use error::SwitchError;
pub use explain::{Described, ExplainError};
pub use gateway::{GATEWAY_PORT, Gateway, PORT_NUMBERS};
pub use host_events::follow_host;
pub use running::Switch;
pub use watch::{LimitError, Watch, within};
