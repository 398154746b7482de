//! Network namespaces: open, enter on a helper thread, leave.
