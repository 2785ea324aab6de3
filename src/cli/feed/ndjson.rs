//! Reads updates from NDJSON: one `{"topic", "value", …}` a line, plain or gzip.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::topic::path::{PathError, TopicPath};

/// A line longer than this is refused: a value's limit, a path's, and room for other fields.
pub(in crate::cli) const LINE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// One line of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Update {
    /// Which topic.
    pub(in crate::cli) topic: TopicPath,
    /// The JSON value, byte for byte as it is written in the line.
    pub(in crate::cli) value: Bytes,
}

/// Why the input cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum InputError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// What happened.
        error: std::io::Error,
    },
    /// A line is no update.
    #[error("{path}, line {line}: {error}; a line is {{\"topic\": …, \"value\": …}}")]
    Line {
        /// Which file.
        path: String,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// A line's topic is no topic path.
    #[error("{path}, line {line}: {error}")]
    Topic {
        /// Which file.
        path: String,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        error: PathError,
    },
    /// A line is too long.
    #[error("{path}, line {line}: longer than {LINE_BYTES_MAX} bytes")]
    TooLong {
        /// Which file.
        path: String,
        /// Counted from 1.
        line: u64,
    },
}

/// The updates of one file, read as they are asked for.
pub(in crate::cli) struct Updates {
    path: String,
    reader: Box<dyn BufRead + Send>,
    line: u64,
    buffer: Vec<u8>,
}

#[derive(Deserialize)]
struct Line<'a> {
    topic: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
}

impl Updates {
    /// Opens a file; `-` is standard input. A gzip file is known by its first bytes.
    ///
    /// # Errors
    /// [`InputError::Io`] when it cannot be opened or read.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self, InputError> {
        let name = path.display().to_string();
        let raw: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            let opened = File::open(path);
            Box::new(opened.map_err(|error| InputError::Io { path: name.clone(), error })?)
        };
        Self::read(name, raw)
    }

    /// Reads updates from bytes in memory.
    ///
    /// # Errors
    /// [`InputError::Io`] when they cannot be read.
    pub(in crate::cli) fn from_bytes(name: &str, bytes: &'static [u8]) -> Result<Self, InputError> {
        Self::read(name.to_owned(), Box::new(Cursor::new(bytes)))
    }

    fn read(path: String, raw: Box<dyn Read + Send>) -> Result<Self, InputError> {
        let mut raw = BufReader::with_capacity(256 * 1024, raw);
        let head = match raw.fill_buf() {
            Ok(head) => head,
            Err(error) => return Err(InputError::Io { path, error }),
        };
        let reader: Box<dyn BufRead + Send> = if head.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(256 * 1024, MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        Ok(Self { path, reader, line: 0, buffer: Vec::new() })
    }

    /// How many lines are left, blank ones left out, without looking into them.
    ///
    /// # Errors
    /// [`InputError::Io`] when they cannot be read.
    pub(in crate::cli) fn count_lines(mut self) -> Result<u64, InputError> {
        let (mut lines, mut blank) = (0, true);
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok([]) => return Ok(lines + u64::from(!blank)),
                Ok(bytes) => bytes,
                Err(error) => return Err(InputError::Io { path: self.path, error }),
            };
            for byte in bytes {
                if *byte == b'\n' {
                    lines += u64::from(!blank);
                    blank = true;
                } else {
                    blank &= byte.is_ascii_whitespace();
                }
            }
            let read = bytes.len();
            self.reader.consume(read);
        }
    }

    fn parse(&self) -> Result<Option<Update>, InputError> {
        let text = self.buffer.trim_ascii();
        if text.is_empty() {
            return Ok(None);
        }
        let (path, line) = (|| self.path.clone(), self.line);
        let parsed: Line<'_> = serde_json::from_slice(text).map_err(|error| InputError::Line {
            path: path(),
            line,
            error,
        })?;
        let topic = TopicPath::parse(&parsed.topic).map_err(|error| InputError::Topic {
            path: path(),
            line,
            error,
        })?;
        Ok(Some(Update { topic, value: Bytes::copy_from_slice(parsed.value.get().as_bytes()) }))
    }
}

impl Iterator for Updates {
    type Item = Result<Update, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX as u64 + 1);
            match bounded.read_until(b'\n', &mut self.buffer) {
                Ok(0) => return None,
                Ok(read) if read > LINE_BYTES_MAX => {
                    return Some(Err(InputError::TooLong {
                        path: self.path.clone(),
                        line: self.line,
                    }));
                }
                Ok(_) => {}
                Err(error) => {
                    return Some(Err(InputError::Io { path: self.path.clone(), error }));
                }
            }
            match self.parse() {
                Ok(None) => {}
                Ok(Some(update)) => return Some(Ok(update)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_byte_for_byte() {
        let text = b"{\"at\":1,\"topic\":\"a/b\",\"value\":{ \"x\" : 1.50 }}\n\n{\"value\":null,\"topic\":\"c\"}";
        let updates: Vec<_> =
            Updates::from_bytes("test", text).unwrap().map(Result::unwrap).collect();
        assert_eq!(updates[0].topic.as_str(), "a/b");
        assert_eq!(&updates[0].value[..], b"{ \"x\" : 1.50 }");
        assert_eq!(&updates[1].value[..], b"null");
        assert_eq!(updates.len(), 2);
        assert_eq!(Updates::from_bytes("test", text).unwrap().count_lines().unwrap(), 2);
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            (&b"{\"topic\":\"a\",\"value\":1}\n{\"topic\":\"a\"}"[..], "test, line 2"),
            (b"nonsense", "test, line 1"),
            (b"{\"topic\":\"a//b\",\"value\":1}", "empty segment"),
        ] {
            let errors: Vec<_> =
                Updates::from_bytes("test", text).unwrap().filter_map(Result::err).collect();
            assert!(errors[0].to_string().contains(expected), "{}", errors[0]);
        }
    }

    #[test]
    fn the_flights_are_complete() {
        let bytes = include_bytes!("../../../tests/data/flights-2013-01.ndjson.gz");
        let updates = Updates::from_bytes("flights", bytes).unwrap();
        let mut topics = std::collections::BTreeSet::new();
        let mut count = 0;
        for update in updates {
            topics.insert(update.unwrap().topic);
            count += 1;
        }
        assert_eq!((count, topics.len()), (82_717, 27_007));
    }
}
