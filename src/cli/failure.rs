//! Errors that know their exit code.

use crate::client::RequestError;
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

/// The exit code of an error: that of the first [`Failure`] or request that failed among its
/// causes, else 1.
pub(super) fn code_of(error: &anyhow::Error) -> ExitCode {
    let code = error.chain().find_map(|cause| {
        let failure = cause.downcast_ref::<Failure>().map(|failure| failure.code);
        failure.or_else(|| cause.downcast_ref::<RequestError>().map(code_of_request))
    });
    code.unwrap_or(ExitCode::FAILED)
}

fn code_of_request(error: &RequestError) -> ExitCode {
    match error {
        RequestError::Selector(_) => ExitCode::USAGE,
        RequestError::SessionEnded(_) | RequestError::SessionEndedMeanwhile { .. } => {
            ExitCode::CONNECTION
        }
        RequestError::OutcomeUnknown { .. } | RequestError::ReadTimedOut => ExitCode::TIMED_OUT,
        _ => ExitCode::FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::SessionEnded;

    #[test]
    fn context_does_not_hide_the_code() {
        let error = Failure::usage("--nodes 2").context("cannot start");
        assert_eq!(code_of(&error), ExitCode::USAGE);
        assert_eq!(code_of(&anyhow::anyhow!("other")), ExitCode::FAILED);
    }

    #[test]
    fn requests_that_fail_say_how() {
        let selector = crate::domain::selector::Selector::parse("%").unwrap_err();
        for (error, code) in [
            (RequestError::Selector(selector), ExitCode::USAGE),
            (RequestError::ReadTimedOut, ExitCode::TIMED_OUT),
            (RequestError::OutcomeUnknown { request: 7, parked: None }, ExitCode::TIMED_OUT),
            (RequestError::SessionEnded(SessionEnded::Closed.into()), ExitCode::CONNECTION),
            (RequestError::WindowFull, ExitCode::FAILED),
        ] {
            let error = anyhow::Error::from(error).context("cannot list topics");
            assert_eq!(code_of(&error), code, "{error:#}");
        }
    }
}
