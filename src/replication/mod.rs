//! One order for everything: the only folder that knows the Raft library.
//!
//! Commands enter through [`SessionProposer::submit`] and [`Replication::propose`], reach the leader
//! in order, are flushed on a quorum as entries, applied to the machine on every node and answered
//! by the local apply; what they cause is read from the [`Journal`].
//!
//! ```text
//! submit ─► pending ─► proposer ─┬─ leads: entry ─► Raft ─► log store ─► quorate-storage
//!               ▲                └─ follows: forward lane ─► leader     ─► append lanes
//!               │                                            │ committed
//!               └── outcomes ── state store: machine.apply ◄─┘ ── events ─► journal
//! ```

mod consensus;
mod core;
mod error;
mod founding;
mod handle;
mod history;
mod journal;
mod members;
mod proposing;
mod settings;
mod start;
mod status;
mod stop;
mod upkeep;

#[doc(hidden)]
pub use consensus::fuzzing;
pub use error::{ProposeError, ReadError, Refusal, StartError};
pub use founding::loss::{AcceptLossError, AcceptedLoss, accept_loss};
pub use founding::rules::{FOUNDERS_MAX, FoundingFault};
pub use handle::{Member, Replication};
pub use history::reader::JournalReader;
pub use journal::{Block, Journal, RING_BYTES_DEFAULT, Read};
pub use proposing::pending::{PERMITS, SessionProposer};
pub use settings::{FoundingSettings, PeerSettings, ReplicationSettings, Retention, Timing};
pub use status::{
    ClusterStatus, ConsensusStanding, NodeReport, NodeState, NodeStatus, Quorum, Role,
};
