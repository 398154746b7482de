//! Built-in address management: leases per node, kept in the store.
