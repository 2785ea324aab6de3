//! What kind of topic: its type and its properties (semantics: one table, [`Property`]).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::domain::limits;

/// What values a topic takes. Numbers are stored and sent, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TopicType {
    /// UTF-8 text, or null.
    String = 1,
    /// A JSON text, kept byte for byte as it was written; `null` is a value like any other.
    Json = 2,
    /// Bytes.
    Binary = 3,
    /// A signed 64-bit number in 8 little-endian bytes, or null.
    Int64 = 4,
    /// An IEEE 754 number in 8 little-endian bytes, or null.
    Double = 5,
}

impl TopicType {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::String, Self::Json, Self::Binary, Self::Int64, Self::Double];

    /// The stable number of this type.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The type of this number; none when there is no such type.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.code() == code)
    }

    /// Its name in texts: `string`, `json`, `binary`, `int64`, `double`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Json => "json",
            Self::Binary => "binary",
            Self::Int64 => "int64",
            Self::Double => "double",
        }
    }

    /// A topic of this type can have no value: setting null clears it.
    #[must_use]
    pub fn allows_null(self) -> bool {
        matches!(self, Self::String | Self::Int64 | Self::Double)
    }

    /// Updates of this type may travel as differences.
    #[must_use]
    pub fn has_deltas(self) -> bool {
        matches!(self, Self::String | Self::Json | Self::Binary)
    }
}

impl fmt::Display for TopicType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for TopicType {
    type Err = TopicTypeError;

    fn from_str(text: &str) -> Result<Self, TopicTypeError> {
        Self::ALL
            .into_iter()
            .find(|candidate| candidate.name() == text)
            .ok_or_else(|| TopicTypeError { text: text.to_owned() })
    }
}

/// A text that names no topic type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no topic type; the types are string, json, binary, int64 and double")]
pub struct TopicTypeError {
    /// What was given.
    pub text: String,
}

/// What happens to a topic's waiting updates when a session lags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conflation {
    /// Each update is delivered.
    Off,
    /// A session that lags may jump to the newest value.
    #[default]
    Conflate,
    /// A session that lags is unsubscribed from the topic.
    Unsubscribe,
    /// A waiting update is always replaced by the next one.
    Always,
}

/// How much work compression of a topic's values is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// None.
    Off,
    /// Little.
    #[default]
    Low,
    /// More.
    Medium,
    /// Much.
    High,
}

/// In which order initial and bulk values are sent; live events are always in position order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// After all others.
    Low,
    /// Between.
    #[default]
    Default,
    /// Before all others.
    High,
}

impl Conflation {
    const NAMES: [(&str, Self); 4] = [
        ("off", Self::Off),
        ("conflate", Self::Conflate),
        ("unsubscribe", Self::Unsubscribe),
        ("always", Self::Always),
    ];

    /// Its text in a property.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_in(&Self::NAMES, self)
    }
}

impl Compression {
    const NAMES: [(&str, Self); 4] =
        [("off", Self::Off), ("low", Self::Low), ("medium", Self::Medium), ("high", Self::High)];

    /// Its text in a property.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_in(&Self::NAMES, self)
    }
}

impl Priority {
    const NAMES: [(&str, Self); 3] =
        [("low", Self::Low), ("default", Self::Default), ("high", Self::High)];

    /// Its text in a property.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_in(&Self::NAMES, self)
    }
}

fn name_in<T: Copy + PartialEq>(names: &'static [(&'static str, T)], value: T) -> &'static str {
    names.iter().find(|(_, candidate)| *candidate == value).map_or("", |(name, _)| name)
}

/// A topic's type and properties, checked. Two specifications are equal when the types and all
/// effective properties are: a property that is given its default, or that means nothing for the
/// type, makes no difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specification {
    topic_type: TopicType,
    conflation: Conflation,
    compression: Compression,
    priority: Priority,
    switches: Switches,
    owner: Option<Arc<str>>,
}

/// The properties that are either on or off, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Switches(u8);

impl Switches {
    const PUBLISH_VALUES_ONLY: u8 = 1;
    const VALIDATE_VALUES: u8 = 2;
    const TIDY_ON_UNSUBSCRIBE: u8 = 4;
    const DONT_RETAIN_VALUE: u8 = 8;
    const NOT_PERSISTENT: u8 = 16;

    fn holds(self, switch: u8) -> bool {
        self.0 & switch != 0
    }

    fn set(&mut self, switch: u8, on: bool) {
        if on {
            self.0 |= switch;
        } else {
            self.0 &= !switch;
        }
    }
}

/// The keys that a specification may have.
pub const PROPERTY_KEYS: [&str; 9] = [
    "COMPRESSION",
    "CONFLATION",
    "DONT_RETAIN_VALUE",
    "OWNER",
    "PERSISTENT",
    "PRIORITY",
    "PUBLISH_VALUES_ONLY",
    "TIDY_ON_UNSUBSCRIBE",
    "VALIDATE_VALUES",
];

/// Keys of properties that this server does not have; they are refused by name, not ignored, since
/// a topic without them would behave otherwise than asked for.
const KEYS_NOT_BUILT: [&str; 5] = [
    "REMOVAL",
    "SCHEMA",
    "TIME_SERIES_EVENT_VALUE_TYPE",
    "TIME_SERIES_RETAINED_RANGE",
    "TIME_SERIES_SUBSCRIPTION_RANGE",
];

/// Why a topic cannot be like that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecificationError {
    /// No such property.
    #[error("{key:?} is no topic property; the properties are {}", PROPERTY_KEYS.join(", "))]
    UnknownKey {
        /// What was given, at most its first 64 characters.
        key: String,
    },
    /// A property that this server does not support.
    #[error("topic property {key} is not supported by this server; leave it out")]
    NotBuilt {
        /// Which.
        key: &'static str,
    },
    /// A value that the property cannot have.
    #[error("topic property {key} cannot be {value:?}; it is {legal}")]
    IllegalValue {
        /// Which property.
        key: &'static str,
        /// What was given, at most its first 64 characters.
        value: String,
        /// What it can be.
        legal: &'static str,
    },
}

impl Specification {
    /// A topic of this type with every property at its default.
    #[must_use]
    pub fn plain(topic_type: TopicType) -> Self {
        Self {
            topic_type,
            conflation: Conflation::default(),
            compression: Compression::default(),
            priority: Priority::default(),
            switches: Switches::default(),
            owner: None,
        }
    }

    /// Checks properties given as texts. A key given twice has its last value.
    ///
    /// # Errors
    /// [`SpecificationError`] names the key and what is legal. Properties that mean nothing for the
    /// type are checked too, then ignored.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(
        topic_type: TopicType,
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, SpecificationError> {
        let mut specification = Self::plain(topic_type);
        for (key, value) in properties {
            specification.set(key.as_ref(), value.as_ref())?;
        }
        Ok(specification)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), SpecificationError> {
        match key {
            "COMPRESSION" => {
                let value = match value {
                    "true" => "medium",
                    "false" => "off",
                    other => other,
                };
                let chosen =
                    choose("COMPRESSION", &Compression::NAMES, value, "off, low, medium or high")?;
                if self.topic_type.has_deltas() {
                    self.compression = chosen;
                }
            }
            "CONFLATION" => {
                let legal = "off, conflate, unsubscribe or always";
                self.conflation = choose("CONFLATION", &Conflation::NAMES, value, legal)?;
            }
            "PRIORITY" => {
                self.priority =
                    choose("PRIORITY", &Priority::NAMES, value, "low, default or high")?;
            }
            "OWNER" => self.owner = Some(parse_owner(value)?),
            "PUBLISH_VALUES_ONLY" => {
                let on = parse_switch("PUBLISH_VALUES_ONLY", value)?;
                self.switches
                    .set(Switches::PUBLISH_VALUES_ONLY, on && self.topic_type.has_deltas());
            }
            "VALIDATE_VALUES" => {
                self.switches
                    .set(Switches::VALIDATE_VALUES, parse_switch("VALIDATE_VALUES", value)?);
            }
            "TIDY_ON_UNSUBSCRIBE" => {
                self.switches.set(
                    Switches::TIDY_ON_UNSUBSCRIBE,
                    parse_switch("TIDY_ON_UNSUBSCRIBE", value)?,
                );
            }
            "DONT_RETAIN_VALUE" => {
                self.switches
                    .set(Switches::DONT_RETAIN_VALUE, parse_switch("DONT_RETAIN_VALUE", value)?);
            }
            "PERSISTENT" => {
                self.switches.set(Switches::NOT_PERSISTENT, !parse_switch("PERSISTENT", value)?);
            }
            other => {
                return Err(match KEYS_NOT_BUILT.into_iter().find(|key| *key == other) {
                    Some(key) => SpecificationError::NotBuilt { key },
                    None => SpecificationError::UnknownKey { key: shortened(other) },
                });
            }
        }
        Ok(())
    }

    /// What values the topic takes.
    #[must_use]
    pub fn topic_type(&self) -> TopicType {
        self.topic_type
    }

    /// What a session that lags does about this topic.
    #[must_use]
    pub fn conflation(&self) -> Conflation {
        self.conflation
    }

    /// How much work compression is worth. Stored and shown; always `low` for numbers.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Its place among initial and bulk values.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The principal that may read, modify and update the topic whatever the path permissions say.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Updates never travel as differences.
    #[must_use]
    pub fn publish_values_only(&self) -> bool {
        self.switches.holds(Switches::PUBLISH_VALUES_ONLY) || self.dont_retain_value()
    }

    /// Stored and shown only: values are always checked, whatever it says.
    #[must_use]
    pub fn validate_values(&self) -> bool {
        self.switches.holds(Switches::VALIDATE_VALUES)
    }

    /// Updates that still wait for a session are dropped when it unsubscribes.
    #[must_use]
    pub fn tidy_on_unsubscribe(&self) -> bool {
        self.switches.holds(Switches::TIDY_ON_UNSUBSCRIBE)
    }

    /// No last value is kept: nothing to fetch, no initial value, and every update is published
    /// even when it equals the one before.
    #[must_use]
    pub fn dont_retain_value(&self) -> bool {
        self.switches.holds(Switches::DONT_RETAIN_VALUE)
    }

    /// Stored and shown only: every replicated topic is in the log.
    #[must_use]
    pub fn persistent(&self) -> bool {
        !self.switches.holds(Switches::NOT_PERSISTENT)
    }

    /// The properties that differ from their defaults, in their canonical texts. [`Self::new`] of
    /// them gives an equal specification.
    #[must_use]
    pub fn properties(&self) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        let mut put = |key: &str, given: bool, value: String| {
            if given {
                properties.insert(key.to_owned(), value);
            }
        };
        let Self { conflation, compression, priority, switches, owner, .. } = self;
        put("COMPRESSION", *compression != Compression::default(), compression.name().to_owned());
        put("CONFLATION", *conflation != Conflation::default(), conflation.name().to_owned());
        put("PRIORITY", *priority != Priority::default(), priority.name().to_owned());
        for (key, switch) in [
            ("PUBLISH_VALUES_ONLY", Switches::PUBLISH_VALUES_ONLY),
            ("VALIDATE_VALUES", Switches::VALIDATE_VALUES),
            ("TIDY_ON_UNSUBSCRIBE", Switches::TIDY_ON_UNSUBSCRIBE),
            ("DONT_RETAIN_VALUE", Switches::DONT_RETAIN_VALUE),
        ] {
            put(key, switches.holds(switch), "true".to_owned());
        }
        put("PERSISTENT", switches.holds(Switches::NOT_PERSISTENT), "false".to_owned());
        if let Some(owner) = owner {
            put("OWNER", true, print_owner(owner));
        }
        properties
    }
}

fn choose<T: Copy>(
    key: &'static str,
    names: &[(&str, T)],
    value: &str,
    legal: &'static str,
) -> Result<T, SpecificationError> {
    names
        .iter()
        .find(|(name, _)| *name == value)
        .map(|(_, chosen)| *chosen)
        .ok_or_else(|| SpecificationError::IllegalValue { key, value: shortened(value), legal })
}

fn parse_switch(key: &'static str, value: &str) -> Result<bool, SpecificationError> {
    choose(key, &[("true", true), ("false", false)], value, "true or false")
}

/// `$Principal is "name"`, the name in single or double quotes with backslash escapes.
fn parse_owner(value: &str) -> Result<Arc<str>, SpecificationError> {
    let parse = || {
        let rest = value.trim().strip_prefix("$Principal")?;
        let name = rest.trim_start().strip_prefix("is")?;
        if name.len() == rest.len() - 2 {
            return None;
        }
        let name = name.trim_start();
        let quote = name.chars().next().filter(|first| matches!(first, '"' | '\''))?;
        let mut characters = name.chars().skip(1);
        let mut principal = String::new();
        loop {
            match characters.next()? {
                '\\' => principal.push(characters.next()?),
                other if other == quote => break,
                other => principal.push(other),
            }
        }
        let sound = characters.next().is_none()
            && !principal.is_empty()
            && principal.len() <= limits::PRINCIPAL_BYTES_MAX;
        sound.then(|| principal.into())
    };
    parse().ok_or_else(|| SpecificationError::IllegalValue {
        key: "OWNER",
        value: shortened(value),
        legal: "$Principal is \"name\", the name of 1 to 256 bytes",
    })
}

fn print_owner(principal: &str) -> String {
    let mut text = String::from("$Principal is \"");
    for character in principal.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
    text
}

/// What is repeated of a text that somebody sent.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(
        topic_type: TopicType,
        pairs: &[(&str, &str)],
    ) -> Result<Specification, SpecificationError> {
        Specification::new(topic_type, pairs.iter().copied())
    }

    #[test]
    fn defaults_make_no_difference() {
        let defaults = [
            ("COMPRESSION", "low"),
            ("CONFLATION", "conflate"),
            ("DONT_RETAIN_VALUE", "false"),
            ("PERSISTENT", "true"),
            ("PRIORITY", "default"),
            ("PUBLISH_VALUES_ONLY", "false"),
            ("TIDY_ON_UNSUBSCRIBE", "false"),
            ("VALIDATE_VALUES", "false"),
        ];
        let given = new(TopicType::Json, &defaults).unwrap();
        assert_eq!(given, Specification::plain(TopicType::Json));
        assert!(given.properties().is_empty());
        assert_ne!(given, Specification::plain(TopicType::String));
    }

    #[test]
    fn properties_print_and_parse() {
        let given = [
            ("COMPRESSION", "high"),
            ("CONFLATION", "off"),
            ("DONT_RETAIN_VALUE", "true"),
            ("OWNER", r#"$Principal is "a \"b\" \\ c""#),
            ("PERSISTENT", "false"),
            ("PRIORITY", "high"),
            ("PUBLISH_VALUES_ONLY", "true"),
            ("TIDY_ON_UNSUBSCRIBE", "true"),
            ("VALIDATE_VALUES", "true"),
        ];
        let specification = new(TopicType::Json, &given).unwrap();
        let printed = specification.properties();
        assert_eq!(
            printed.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>(),
            given
        );
        assert_eq!(given.map(|(key, _)| key), PROPERTY_KEYS);
        assert_eq!(Specification::new(TopicType::Json, printed), Ok(specification.clone()));
        assert_eq!(specification.owner(), Some(r#"a "b" \ c"#));
        assert_eq!(specification.conflation(), Conflation::Off);
        assert_eq!(specification.priority(), Priority::High);
        assert_eq!(specification.compression(), Compression::High);
        assert!(specification.dont_retain_value() && specification.tidy_on_unsubscribe());
        assert!(specification.validate_values() && !specification.persistent());
        assert!(specification.publish_values_only());
    }

    #[test]
    fn what_means_nothing_for_the_type_is_checked_and_ignored() {
        for (key, value) in [("COMPRESSION", "high"), ("PUBLISH_VALUES_ONLY", "true")] {
            assert_eq!(
                new(TopicType::Int64, &[(key, value)]),
                Ok(Specification::plain(TopicType::Int64))
            );
            assert_ne!(
                new(TopicType::Binary, &[(key, value)]),
                Ok(Specification::plain(TopicType::Binary))
            );
        }
        assert!(new(TopicType::Int64, &[("COMPRESSION", "much")]).is_err());
    }

    #[test]
    fn older_texts_of_compression_are_read() {
        let medium = new(TopicType::Json, &[("COMPRESSION", "true")]).unwrap();
        assert_eq!(medium.compression(), Compression::Medium);
        let off = new(TopicType::Json, &[("COMPRESSION", "false")]).unwrap();
        assert_eq!(off.compression(), Compression::Off);
    }

    #[test]
    fn errors_name_the_key_and_what_is_legal() {
        for (key, value, expected) in [
            (
                "CONFLATE",
                "off",
                "\"CONFLATE\" is no topic property; the properties are COMPRESSION,",
            ),
            ("conflation", "off", "\"conflation\" is no topic property"),
            ("REMOVAL", "when …", "topic property REMOVAL is not supported by this server"),
            (
                "TIME_SERIES_RETAINED_RANGE",
                "limit 1",
                "TIME_SERIES_RETAINED_RANGE is not supported",
            ),
            (
                "CONFLATION",
                "Off",
                "topic property CONFLATION cannot be \"Off\"; it is off, conflate,",
            ),
            ("PRIORITY", "", "topic property PRIORITY cannot be \"\"; it is low, default or high"),
            (
                "PERSISTENT",
                "yes",
                "topic property PERSISTENT cannot be \"yes\"; it is true or false",
            ),
            ("OWNER", "admin", "topic property OWNER cannot be \"admin\"; it is $Principal is"),
            ("OWNER", "$Principal is \"\"", "topic property OWNER cannot be"),
            ("OWNER", "$Principalis \"a\"", "topic property OWNER cannot be"),
            ("OWNER", "$Principal is \"a\" ", ""),
            ("OWNER", "$Principal is \"a' x", "topic property OWNER cannot be"),
        ] {
            let made = new(TopicType::Json, &[(key, value)]);
            if expected.is_empty() {
                assert!(made.is_ok(), "{value}: {made:?}");
            } else {
                let message = made.unwrap_err().to_string();
                assert!(message.contains(expected), "{key} {value}: {message}");
            }
        }
    }

    #[test]
    fn types_have_names_and_numbers() {
        for topic_type in TopicType::ALL {
            assert_eq!(topic_type.name().parse(), Ok(topic_type));
            assert_eq!(TopicType::from_code(topic_type.code()), Some(topic_type));
        }
        assert_eq!(TopicType::ALL.map(TopicType::code), [1, 2, 3, 4, 5]);
        assert_eq!(TopicType::from_code(0), None);
        assert!("JSON".parse::<TopicType>().is_err());
    }
}
