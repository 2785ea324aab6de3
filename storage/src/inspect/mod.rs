//! inspect
mod overlay;
pub use overlay::OverlayDisk;
