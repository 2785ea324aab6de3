//! Every bound that the domain enforces, unit last.

/// A topic path, in bytes of UTF-8.
pub const PATH_BYTES_MAX: usize = 1024;
/// A topic's value.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// One command in the log: a value, its path and its other fields.
pub const COMMAND_BYTES_MAX: usize = VALUE_BYTES_MAX + 32 * 1024;
/// A soft bound: the proposer closes an entry that has reached it; a larger command travels alone.
pub const ENTRY_BYTES_SOFT: usize = 256 * 1024;
/// Commands in one entry; an [`Index`](super::id::Index) has 16 bits for them.
pub const ENTRY_COMMANDS_MAX: usize = 65_535;
/// A selector's text.
pub const SELECTOR_BYTES_MAX: usize = 8 * 1024;
/// The compiled form of one regular expression in a selector, as estimated before it is compiled.
pub const REGEX_BYTES_MAX: usize = 256 * 1024;
/// The compiled forms of all regular expressions in one selector, as estimated.
pub const SELECTOR_COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// Selectors in a selector set.
pub const SELECTOR_SET_MAX: usize = 256;
/// Nodes in one update constraint, and its depth.
pub const CONSTRAINT_NODES_MAX: usize = 64;
/// One update constraint, as bytes or as text: it may hold a value.
pub const CONSTRAINT_BYTES_MAX: usize = VALUE_BYTES_MAX + 16 * 1024;
/// Selections (select and deselect entries) that a session holds over all its scopes.
pub const SELECTIONS_MAX: usize = 1024;
/// The compiled forms of all regular expressions in a session's selections, as estimated.
pub const SELECTIONS_COMPILED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The name of a selection scope.
pub const SCOPE_BYTES_MAX: usize = 256;
/// Topic notification listeners that a session holds.
pub const LISTENERS_MAX: usize = 64;
/// Items that one paged command touches: removals, expiries.
pub const PAGE_ITEMS_MAX: usize = 1_000;
/// Topics that one paged command looks at.
pub const PAGE_VISITS_MAX: usize = 10_000;
/// Commands of one session that may be unanswered; its answer ring keeps at least as many.
pub const SESSION_IN_FLIGHT_MAX: usize = 1_024;
/// A session property's key and value together.
pub const PROPERTY_BYTES_MAX: usize = 4 * 1024;
/// Properties of one session.
pub const PROPERTIES_MAX: usize = 64;
/// A principal's name.
pub const PRINCIPAL_BYTES_MAX: usize = 256;
/// Levels of nesting in a JSON value.
pub const JSON_DEPTH_MAX: usize = 128;
/// Roles of one session, and the length of each.
pub const ROLES_MAX: usize = 64;
/// A role's name.
pub const ROLE_BYTES_MAX: usize = 256;
/// Principals in the authentication store.
pub const PRINCIPALS_MAX: usize = 10_000;
/// A password hash as a PHC string.
pub const PASSWORD_HASH_BYTES_MAX: usize = 512;
/// Members that one founding command may name.
pub const FOUNDERS_MAX: usize = 64;
/// A member's name.
pub const NODE_NAME_BYTES_MAX: usize = 256;
/// Bytes of one snapshot record; only an item that is larger by itself makes a larger one.
pub const SNAPSHOT_RECORD_BYTES: usize = 64 * 1024;
/// A JSON pointer's text.
pub const POINTER_BYTES_MAX: usize = 1024;
/// The results of one fetch: paths, values, properties. A page holds one result at least.
pub const FETCH_BYTES_MAX: usize = 1024 * 1024;
/// Topics that one fetch looks at before it answers with what it has.
pub const FETCH_VISITS_MAX: usize = 1_000_000;
