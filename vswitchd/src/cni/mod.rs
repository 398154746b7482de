//! The daemon's side of the CNI shim: ADD, DEL, CHECK, GC, STATUS.
