//! Configuration: defaults < file < environment < flags, checked as a whole.
