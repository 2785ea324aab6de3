//! Requests of clients: checked, translated, answered.

pub(super) mod authorize;
pub(super) mod fetch;
pub(super) mod intake;
pub(super) mod reads;
pub(super) mod reply_code;
pub(super) mod status_json;
pub(super) mod translate;
pub(super) mod translate_constraint;
