//! The fuzz targets as functions, so that a stable test replays their corpora.
//!
//! `fuzz_targets/` holds a line for each; `tests/replay.rs` runs every committed input, and every
//! input that once failed, through the same function.

/// A target: any bytes in; it returns, or something is wrong.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("record", quorate_storage::fuzzing::record_decode),
    ("segment", segment_open),
    ("log_operations", log_operations),
    ("snapshot_file", quorate_storage::snapshot::fuzzing::snapshot_decode),
    ("snapshot_state", quorate::domain::fuzzing::snapshot_restore),
    ("machine_commands", quorate::domain::fuzzing::machine_commands),
    ("command", quorate::domain::fuzzing::command_bytes),
    ("client_frame", quorate::protocol::fuzzing::client_frames),
    ("server_frame", quorate::protocol::fuzzing::server_frames),
    ("event_frame", quorate::protocol::fuzzing::event_frames),
    ("bulk_frame", quorate::protocol::fuzzing::bulk_frames),
    ("peer_frame", peer_frames),
    #[cfg(feature = "replication")]
    ("consensus_message", quorate::replication::fuzzing::consensus_messages),
    ("selector", quorate::domain::selector::fuzz_selector),
    ("constraint", quorate::domain::constraint::fuzz_constraint),
];

/// A log's only segment; what the log holds is for the storage crate's own test.
fn segment_open(bytes: &[u8]) {
    let _entries = quorate_storage::fuzzing::segment_open(bytes);
}

/// What peers send: hellos in frames, and proposals in the form of a log entry.
fn peer_frames(bytes: &[u8]) {
    quorate::protocol::fuzzing::peer_frames(bytes);
    quorate::domain::fuzzing::entry_payload(bytes);
}

/// Log operations with reboots against a model; the statistics are for the crash-point test.
fn log_operations(bytes: &[u8]) {
    let _statistics = quorate_storage::fuzzing::log_operations(bytes);
}

/// Runs one target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.expect("fuzz_targets/ names targets of the table only");
    target(bytes);
}
