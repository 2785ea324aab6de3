//! The frames of the NATS client protocol; pure.
//!
//! ```text
//! server: INFO {..}\r\n  +OK\r\n  -ERR 'text'\r\n  PING\r\n  PONG\r\n
//!         MSG subject sid [reply] bytes\r\n payload \r\n
//!         HMSG subject sid [reply] head-bytes bytes\r\n head payload \r\n
//! client: CONNECT {..}\r\n  PING\r\n  PONG\r\n  SUB subject sid\r\n
//!         PUB subject [reply] bytes\r\n payload \r\n
//! ```

use std::io::Write as _;

use anyhow::{Context as _, bail, ensure};

/// A line is no longer than this; the server's INFO is the longest.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// No message of the benchmark is larger.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One frame from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// What the server says of itself.
    Info,
    /// A message of a subscription; its headers are left out.
    Message {
        subject: &'a [u8],
        payload: &'a [u8],
    },
    Ping,
    Pong,
    Ok,
    /// The server's complaint.
    Error(&'a [u8]),
}

/// The first frame of `bytes` and its length; none if it is not complete.
///
/// # Errors
/// When it cannot become a frame.
pub(crate) fn frame(bytes: &[u8]) -> anyhow::Result<Option<(Frame<'_>, usize)>> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        ensure!(bytes.len() <= LINE_BYTES_MAX, "a line of more than {LINE_BYTES_MAX} bytes");
        return Ok(None);
    };
    let (line, rest) = bytes.split_at(end + 1);
    let line = line.strip_suffix(b"\r\n").context("a line that does not end in CR LF")?;
    let after = |word: &[u8]| line.strip_prefix(word);
    let (words, is_headed) = match (after(b"MSG "), after(b"HMSG ")) {
        (Some(words), _) => (words, false),
        (None, Some(words)) => (words, true),
        (None, None) => return Ok(Some((short(line)?, end + 1))),
    };
    let mut words = words.split(|byte| *byte == b' ');
    let subject = words.next().context("a message without a subject")?;
    let body_bytes = number(words.next_back())?;
    let head_bytes = if is_headed { number(words.next_back())? } else { 0 };
    ensure!(body_bytes <= MESSAGE_BYTES_MAX, "a message of {body_bytes} bytes");
    let Some(body) = rest.get(..body_bytes) else { return Ok(None) };
    let Some(close) = rest.get(body_bytes..body_bytes + 2) else { return Ok(None) };
    ensure!(close == b"\r\n", "a message that does not end in CR LF");
    let payload = body.get(head_bytes..).context("headers longer than their message")?;
    Ok(Some((Frame::Message { subject, payload }, end + 1 + body_bytes + 2)))
}

fn short(line: &[u8]) -> anyhow::Result<Frame<'_>> {
    match line {
        b"PING" => Ok(Frame::Ping),
        b"PONG" => Ok(Frame::Pong),
        b"+OK" => Ok(Frame::Ok),
        _ if line.starts_with(b"INFO ") => Ok(Frame::Info),
        _ => match line.strip_prefix(b"-ERR ") {
            Some(complaint) => Ok(Frame::Error(complaint)),
            None => bail!("an unknown line: {}", String::from_utf8_lossy(line)),
        },
    }
}

fn number(word: Option<&[u8]>) -> anyhow::Result<usize> {
    let word = word.context("a message without its size")?;
    let digits = std::str::from_utf8(word).ok().and_then(|digits| digits.parse().ok());
    digits.with_context(|| format!("no number: {}", String::from_utf8_lossy(word)))
}

/// Appends a subscription.
pub(crate) fn put_subscribe(buffer: &mut Vec<u8>, subject: &str) {
    put(buffer, format_args!("SUB {subject} 1\r\n"));
}

/// Appends a message; its answer goes to `reply`.
pub(crate) fn put_publish(
    buffer: &mut Vec<u8>,
    subject: std::fmt::Arguments<'_>,
    reply: Option<std::fmt::Arguments<'_>>,
    payload: &[u8],
) {
    put(buffer, format_args!("PUB {subject} "));
    if let Some(reply) = reply {
        put(buffer, format_args!("{reply} "));
    }
    put(buffer, format_args!("{}\r\n", payload.len()));
    buffer.extend_from_slice(payload);
    buffer.extend_from_slice(b"\r\n");
}

fn put(buffer: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    buffer.write_fmt(text).expect("a vector takes every byte");
}
