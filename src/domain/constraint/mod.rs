//! Update constraints (semantics.md §3.6), `locked` excepted.

/// A condition on the topic at the moment of an update.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Constraint {
    /// Always holds.
    #[default]
    Unconstrained,
}
