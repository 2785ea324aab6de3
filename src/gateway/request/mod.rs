//! What clients ask for: their numbers, what they mean as commands and reads, whether they may.

mod authorize;
mod constraint;
pub(in crate::gateway) mod fetch;
pub(in crate::gateway) mod numbers;
pub(in crate::gateway) mod reads;
mod status_json;
pub(in crate::gateway) mod translate;

pub(in crate::gateway) use authorize::roles_of;
pub use status_json::status_json;
