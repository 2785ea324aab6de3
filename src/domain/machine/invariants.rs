//! What must hold between and within the parts of a machine, whatever commands it was given.
//!
//! Called by tests, fuzz targets and the simulation; it visits everything, so never on the way of a
//! command.

use super::Machine;

/// What does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invariant broken at entry {applied}: {what}")]
pub struct Violation {
    /// The newest entry that the machine has applied.
    pub applied: u64,
    /// The first thing that does not hold.
    pub what: &'static str,
}

/// Checks everything.
///
/// # Errors
/// [`Violation`] names the first thing that does not hold.
pub fn check(machine: &Machine) -> Result<(), Violation> {
    let violation = |what| Violation { applied: machine.applied(), what };
    machine.topics.check().map_err(violation)?;
    machine.sessions.check().map_err(violation)?;
    let recomputed = [
        (machine.topics.hash(), machine.topics.recomputed_hash(), "the hash of topics is stale"),
        (
            machine.sessions.hash(),
            machine.sessions.recomputed_hash(),
            "the hash of sessions is stale",
        ),
        (
            machine.configuration.hash(),
            machine.configuration.recomputed_hash(),
            "the hash of the configuration is stale",
        ),
    ];
    match recomputed.into_iter().find(|(kept, recomputed, _)| kept != recomputed) {
        Some((_, _, what)) => Err(violation(what)),
        None => Ok(()),
    }
}
