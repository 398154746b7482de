//! Worker threads that move frames between ports through the datapath.
