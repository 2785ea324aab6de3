//! Names for numbers: identifiers, log indices and event positions.

use std::fmt;
use std::str::FromStr;

/// Defines an opaque 64-bit identifier that prints as 16 hex digits.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    if let Ok(value) = u64::from_str_radix(text, 16) {
                        return Ok(Self(value));
                    }
                }
                Err(IdError { text: text.to_owned() })
            }
        }
    };
}

identifier! {
    /// One session, for its whole life and wherever it is hosted. Zero is the cluster itself.
    SessionId
}
identifier! {
    /// One topic from its addition to its removal; a topic added again has a new identifier.
    TopicId
}
identifier! {
    /// One member's log. Founders draw 63 random bits; later ones are a log index with the top bit set.
    NodeId
}
identifier! {
    /// One cluster, drawn when it is founded.
    ClusterId
}
identifier! {
    /// One unbroken history of a cluster; a restore or an accepted loss mints another.
    Lineage
}
identifier! {
    /// One update stream: the index of the command that opened it.
    StreamId
}

impl SessionId {
    /// The cluster itself: the origin of commands that no client numbered.
    pub const CLUSTER: Self = Self(0);
}

/// A text that is no identifier: anything but 16 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an identifier of 16 hex digits")]
pub struct IdError {
    /// What was given.
    pub text: String,
}

/// Where a command stands in the log: the entry's index and the command's place in the entry.
///
/// Written as `entry << 16 | offset`, so an entry carries at most 65,536 commands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Index(pub u64);

impl Index {
    /// The command at `offset` of entry `entry`.
    #[must_use]
    pub fn new(entry: u64, offset: u16) -> Self {
        Self(entry << 16 | u64::from(offset))
    }

    /// The index of the log entry.
    #[must_use]
    pub fn entry(self) -> u64 {
        self.0 >> 16
    }

    /// The command's place in its entry.
    #[must_use]
    pub fn offset(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl fmt::Display for Index {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.entry(), self.offset())
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Index({self})")
    }
}

/// Where an event stands: the command that caused it and the event's place among its events.
///
/// It means the same on every node. People see `78.3` (ordinal 0) or `78.3.2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The command that caused the event.
    pub index: Index,
    /// The event's place among the events of that command.
    pub ordinal: u32,
}

impl Position {
    /// Before every event.
    pub const START: Self = Self { index: Index(0), ordinal: 0 };

    /// After every event of the entries up to and including `entry`.
    #[must_use]
    pub fn end_of_entry(entry: u64) -> Self {
        Self { index: Index::new(entry, u16::MAX), ordinal: u32::MAX }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal {
            0 => write!(formatter, "{}", self.index),
            ordinal => write!(formatter, "{}.{ordinal}", self.index),
        }
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Position({self})")
    }
}

/// A text that is no position: anything but `ENTRY`, `ENTRY.OFFSET` or `ENTRY.OFFSET.ORDINAL`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a position such as 78.3 or 78.3.2")]
pub struct PositionError {
    /// What was given.
    pub text: String,
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let parse = || {
            let mut parts = text.split('.');
            let entry: u64 = parts.next()?.parse().ok()?;
            let offset: u16 = parts.next().map_or(Some(0), |part| part.parse().ok())?;
            let ordinal: u32 = parts.next().map_or(Some(0), |part| part.parse().ok())?;
            (parts.next().is_none() && entry < 1 << 48)
                .then(|| Self { index: Index::new(entry, offset), ordinal })
        };
        parse().ok_or_else(|| PositionError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_print_and_parse() {
        for (text, entry, offset, ordinal) in
            [("78.3", 78, 3, 0), ("78.3.2", 78, 3, 2), ("0.0", 0, 0, 0), ("5.65535", 5, 65_535, 0)]
        {
            let position = Position { index: Index::new(entry, offset), ordinal };
            assert_eq!(position.to_string(), text);
            assert_eq!(text.parse(), Ok(position));
        }
        for text in ["", "a", "1.65536", "1.2.3.4", "281474976710656", "-1", "1."] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    #[test]
    fn identifiers_print_and_parse() {
        let id = SessionId(0x00ab_0000_0000_0001);
        assert_eq!(id.to_string(), "00ab000000000001");
        assert_eq!("00ab000000000001".parse(), Ok(id));
        for text in ["", "1", "00ab00000000000g", "+0ab000000000001", "00ab0000000000011"] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }
}
