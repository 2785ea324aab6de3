//! Snapshots: compacted logs, as files that are whole or are not there.
//!
//! A snapshot is a list of opaque records that rebuild a state at one index of the log, under a
//! header that says where in which history that index stands. This folder owns the format
//! ([`mod@format`]), the writer, the reader that yields nothing it has not checked, the catalogue of a
//! directory, and the transfer of a file in byte ranges. It does not know what the records mean,
//! and it never opens the log.
//!
//! What a file survives: a crash at any byte of its writing leaves a temporary file, which is not
//! a snapshot; a change of any byte afterwards is found before the last record is yielded.

mod catalogue;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
mod reader;
mod transfer;
mod writer;

pub use catalogue::{
    Catalogue, CatalogueError, Kept, Owner, QUARANTINE, RANGE_BYTES_MAX, SetAside,
};
pub use format::{
    FormatError, META_BYTES_MAX, PAGE_BYTES, RECORD_BYTES_MAX, SnapshotHead, SnapshotId,
};
pub use reader::{Records, SnapshotError, SnapshotFault, SnapshotReader};
pub use transfer::{Receiving, SnapshotReceiver, TransferError};
pub use writer::{SnapshotWriter, Written};
