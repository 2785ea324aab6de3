//! Quorate.
pub mod domain;
