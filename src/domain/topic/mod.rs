//! Topics: where they stand, what kind they are, what they hold.

pub mod json;
pub mod path;
pub mod path_range;
pub mod specification;
pub mod value;
