//! Durable order of opaque records: the storage of Quorate.
//!
//! Owns the files of one node: the append log in CRC-framed segments ([`Log`]), the node's
//! [`Identity`], and every rule about when something on disk may be believed. It knows no topics
//! and no Raft; a payload is bytes.
//!
//! ```text
//!   append ─► memory (readable) ─► Writer::step: one write, one fdatasync ─► completion (durable)
//!                │                        │
//!                ▼                        ▼
//!              read                segment files ──► recovery at the next open
//! ```
//!
//! Invariants that other code may lean on:
//!
//! - *readable* and *durable* are two events with two names; a completion is only ever the second.
//! - After a failed flush nothing is acknowledged again until the log has been opened anew.
//! - Nothing is deleted because of doubt: what recovery cuts moves into `quarantine/`.
//! - All file work goes through [`disk::Disk`], so the simulated disk sees every operation.

pub mod disk;
pub mod error;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod index;
pub mod inspect;
pub mod layout;
pub mod log;
pub mod quarantine;
pub mod record;
pub mod recovery;
pub mod segment;
pub mod snapshot;

pub use log::{append_log, group_commit, hard_state, poison, twin_file};

pub use disk::{Disk, DiskFile, OpenMode};
pub use error::{DiskFault, DiskOperation, LogError, OpenError, ReadError};
pub use identity::Identity;
pub use log::append_log::{Completion, Log, LogOptions};
pub use log::group_commit::{Step, Writer};
pub use log::mending::LiveMendError;
pub use log::poison::Poisoned;
pub use log::rotation::{Preparation, Preparer};
pub use record::{Position, Record, RecordKind};
pub use recovery::loss::{Loss, LossError, LostPart, SnapshotEnd, accept_loss};
pub use recovery::mend::{Filling, MendError, Mended, begin_after, mend};
pub use recovery::wound::{Beyond, Diagnosis, Wound, survey};
pub use recovery::{Hole, OpenReport, Tail};
