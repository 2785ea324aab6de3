//! A stream of updates into a cluster: read from a file, sent at a pace, their answers counted.

pub(super) mod feeder;
pub(super) mod ndjson;
pub(super) mod pace;
pub(super) mod tally;
