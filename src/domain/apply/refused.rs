//! The host refused the request for good: the number is used, the reason kept as its answer.

use super::Decision;
use crate::domain::outcome::Rejection;

pub(in crate::domain) fn apply(code: u16) -> Decision {
    Err(Rejection::from_code(code).unwrap_or(Rejection::RefusedByHost))
}

#[cfg(test)]
mod tests {
    use crate::domain::apply::stage::{ONE, Stage};
    use crate::domain::command::Command;
    use crate::domain::outcome::{Outcome, Rejection};

    #[test]
    fn it_uses_the_number_and_keeps_the_reason() {
        let mut stage = Stage::new();
        for (code, reason) in [
            (Rejection::PermissionDenied.code(), Rejection::PermissionDenied),
            (9_999, Rejection::RefusedByHost),
        ] {
            let origin = stage.origin(ONE);
            let (outcome, effects) = stage.send(ONE, Command::Refused { code });
            assert_eq!((outcome, effects), (Outcome::Rejected(reason), vec![]));
            let last = stage.machine.session(ONE).unwrap().answered().last();
            assert_eq!(last, origin.request);
        }
    }
}
