//! The second copy of the newest hard state.

/// The longest hard state.
pub const STATE_BYTES_MAX: usize = 2048;
