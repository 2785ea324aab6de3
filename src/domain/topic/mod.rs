//! Topics: where they stand, what kind they are, what they hold.

pub mod path;
pub mod specification;
