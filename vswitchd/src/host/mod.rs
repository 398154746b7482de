//! What the daemon changes in the host: gateway, veth pairs, masquerade, shields.
