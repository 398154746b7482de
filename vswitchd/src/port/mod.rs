//! Ports: frames in and out of veth, TAP and mirror devices.
