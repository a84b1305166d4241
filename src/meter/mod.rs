//! Metering: a charge is opened at admission and committed exactly once; counters survive SIGKILL; absolute values reach the ledger.

pub mod record;
