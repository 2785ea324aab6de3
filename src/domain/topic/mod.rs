//! Topics: where they stand, what kind they are, what they hold.

pub mod json;
pub mod path;
pub mod path_range;
pub mod record;
mod slots;
pub mod specification;
pub mod tree;
pub mod value;
