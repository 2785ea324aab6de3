//! Topics: where they stand, what kind they are, what they hold.

pub mod path;
pub mod record;
mod slots;
pub mod specification;
pub mod tree;
