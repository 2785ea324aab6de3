//! What is wrong with a configuration, as facts with a way out.

use std::io;
use std::path::PathBuf;

/// Why a configuration is refused; always exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is no TOML, or a value has the wrong type.
    #[error("{} is not understood: {message}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// The parser's words, with line and column.
        message: String,
    },
    /// A key that means nothing.
    #[error("{}: there is no key {key}{}", path.display(), suggestion(.nearest.as_deref()))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key with its section.
        key: String,
        /// The known key that looks most like it, if one does.
        nearest: Option<&'static str>,
    },
    /// A key that must be there is not.
    #[error("{key} is missing: {fix}")]
    Missing {
        /// The key with its section.
        key: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// A value that a setting cannot have.
    #[error("{key} = {value}: {limit}; {fix}")]
    Value {
        /// The key with its section.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        limit: String,
        /// What to do.
        fix: &'static str,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|key| format!("; did you mean {key}?")).unwrap_or_default()
}
