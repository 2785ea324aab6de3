//! Which message is legal when, as a state machine without I/O. Both sides run it.
//!
//! | state | client may say | node may say |
//! |---|---|---|
//! | greeting | hello, look | refused |
//! | welcoming | – | welcome, refused |
//! | looking (after look) | – | read reply, refused |
//! | live | update, command, read, answered, goodbye | acknowledged, reply, read reply, shed, parked, unparked, beat, close |
//! | leaving (after goodbye) | – | as live |
//! | over (after refused, close or the reply to a look) | – | – |

use super::kind;

/// Where a control stream's conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conversation {
    /// Nothing was said.
    #[default]
    Greeting,
    /// The client has said hello.
    Welcoming,
    /// The client reads once, without a session.
    Looking,
    /// The session is open.
    Live,
    /// The client has said goodbye.
    Leaving,
    /// Nothing more may be said.
    Over,
}

/// A message that may not be said now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of kind {kind} has no place while the conversation is {state:?}")]
pub struct OutOfPlace {
    /// Its kind.
    pub kind: u8,
    /// When.
    pub state: Conversation,
}

impl Conversation {
    /// The client says a message of this kind.
    ///
    /// # Errors
    /// [`OutOfPlace`]; the node closes the connection, and nothing changes here.
    pub fn client_says(&mut self, kind: u8) -> Result<(), OutOfPlace> {
        *self = match (*self, kind) {
            (Self::Greeting, kind::HELLO) => Self::Welcoming,
            (Self::Greeting, kind::LOOK) => Self::Looking,
            (Self::Live, kind::UPDATE | kind::COMMAND | kind::READ | kind::ANSWERED) => Self::Live,
            (Self::Live, kind::GOODBYE) => Self::Leaving,
            (state, kind) => return Err(OutOfPlace { kind, state }),
        };
        Ok(())
    }

    /// The node says a message of this kind.
    ///
    /// # Errors
    /// [`OutOfPlace`]; the client leaves the connection, and nothing changes here.
    pub fn node_says(&mut self, kind: u8) -> Result<(), OutOfPlace> {
        *self = match (*self, kind) {
            (Self::Welcoming, kind::WELCOME) => Self::Live,
            (Self::Greeting | Self::Welcoming, kind::REFUSED)
            | (Self::Looking, kind::REFUSED | kind::READ_REPLY) => Self::Over,
            (Self::Live | Self::Leaving, kind::CLOSE) => Self::Over,
            (
                state @ (Self::Live | Self::Leaving),
                kind::ACKNOWLEDGED
                | kind::REPLY
                | kind::READ_REPLY
                | kind::SHED
                | kind::PARKED
                | kind::UNPARKED
                | kind::BEAT,
            ) => state,
            (state, kind) => return Err(OutOfPlace { kind, state }),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [Conversation; 6] = [
        Conversation::Greeting,
        Conversation::Welcoming,
        Conversation::Looking,
        Conversation::Live,
        Conversation::Leaving,
        Conversation::Over,
    ];

    fn next(
        from: Conversation,
        kind: u8,
        says: fn(&mut Conversation, u8) -> Result<(), OutOfPlace>,
    ) -> Option<Conversation> {
        let mut state = from;
        match says(&mut state, kind) {
            Ok(()) => Some(state),
            Err(error) => {
                assert_eq!((error, state), (OutOfPlace { kind, state: from }, from));
                None
            }
        }
    }

    #[test]
    fn the_table_is_complete() {
        use Conversation::{Greeting, Leaving, Live, Looking, Over, Welcoming};
        let client: &[(Conversation, u8, Conversation)] = &[
            (Greeting, kind::HELLO, Welcoming),
            (Greeting, kind::LOOK, Looking),
            (Live, kind::UPDATE, Live),
            (Live, kind::COMMAND, Live),
            (Live, kind::READ, Live),
            (Live, kind::ANSWERED, Live),
            (Live, kind::GOODBYE, Leaving),
        ];
        let mut node = vec![
            (Greeting, kind::REFUSED, Over),
            (Welcoming, kind::REFUSED, Over),
            (Looking, kind::REFUSED, Over),
            (Looking, kind::READ_REPLY, Over),
            (Welcoming, kind::WELCOME, Live),
        ];
        for state in [Live, Leaving] {
            node.push((state, kind::CLOSE, Over));
            for kind in [
                kind::ACKNOWLEDGED,
                kind::REPLY,
                kind::READ_REPLY,
                kind::SHED,
                kind::PARKED,
                kind::UNPARKED,
                kind::BEAT,
            ] {
                node.push((state, kind, state));
            }
        }
        let legal = |table: &[(Conversation, u8, Conversation)], from, kind| {
            table.iter().find(|row| row.0 == from && row.1 == kind).map(|row| row.2)
        };
        for from in STATES {
            for kind in 0..=u8::MAX {
                assert_eq!(next(from, kind, Conversation::client_says), legal(client, from, kind));
                assert_eq!(next(from, kind, Conversation::node_says), legal(&node, from, kind));
            }
        }
    }
}
