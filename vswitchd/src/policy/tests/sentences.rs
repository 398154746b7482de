//! One test per numbered demand on NetworkPolicy semantics.
