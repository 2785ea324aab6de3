//! The members among themselves: connections by node id, what each lane is served by, what they ask
//! each other.

pub(super) mod ask;
pub(super) mod divergence;
pub(super) mod healing;
pub(super) mod lanes;
pub(super) mod mender;
pub(super) mod peers;
pub(super) mod read_barrier;
pub(super) mod records;
pub(super) mod repair;
