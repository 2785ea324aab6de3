//! Errors that know their exit code.

use crate::supervisor::ExitCode;

/// An error that ends the process with a code of its own; wrap it with `anyhow` context freely.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    code: ExitCode,
    message: String,
}

impl Failure {
    /// An error that ends the process with `code`: the thing, its value and the fix.
    pub(super) fn with(code: ExitCode, message: impl Into<String>) -> anyhow::Error {
        Self { code, message: message.into() }.into()
    }

    /// A wrong command line or file.
    pub(super) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::with(ExitCode::USAGE, message)
    }
}

/// The exit code of an error: that of the first [`Failure`] among its causes, else 1.
pub(super) fn code_of(error: &anyhow::Error) -> ExitCode {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    failure.map_or(ExitCode::FAILED, |failure| failure.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_does_not_hide_the_code() {
        let error = Failure::usage("--nodes 2").context("cannot start");
        assert_eq!(code_of(&error), ExitCode::USAGE);
        assert_eq!(code_of(&anyhow::anyhow!("other")), ExitCode::FAILED);
    }
}
