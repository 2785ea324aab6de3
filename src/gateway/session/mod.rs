//! Sessions that this node hosts: from the handshake to the farewell.

pub(super) mod farewell;
pub(super) mod handshake;
pub(super) mod hosting;
pub(super) mod janitor;
pub(super) mod listener;
pub mod outbox;
pub(super) mod password;
pub(super) mod pressure;
pub(super) mod registry;
pub(super) mod secret;
pub(super) mod session_task;
pub(super) mod subscriber;
pub mod turn;
