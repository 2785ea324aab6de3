//! Settings: as written in a file, and as meant.
//!
//! A file is read into options (`file.rs`), joined with the flags of the command line, and turned
//! into settings that cannot be wrong (`settings.rs`, by way of `validate.rs`). What is wrong is refused with the key, the
//! value, the limit and what to do; nothing is repaired in silence. Owns no secrets: files that hold
//! them are named here and read where they are used.

pub mod client;
#[cfg(feature = "server")]
pub mod defaults;
pub mod error;
#[cfg(feature = "server")]
mod file;
mod keys;
#[cfg(feature = "server")]
mod quantity;
#[cfg(feature = "server")]
mod render;
#[cfg(feature = "server")]
pub mod settings;
#[cfg(feature = "server")]
mod validate;

#[cfg(all(test, feature = "server"))]
mod tests;

pub use client::ClientSettings;
pub use error::ConfigError;
#[cfg(feature = "server")]
pub use file::RunFlags;
#[cfg(feature = "server")]
pub use settings::NodeSettings;
