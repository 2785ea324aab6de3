//! One client connection: plain TCP, or TLS after the server's greeting.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::protocol::{Frame, frame, put_publish, put_subscribe};

/// What is read at once, at most.
const READ_BYTES: usize = 64 * 1024;
const HELLO: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\
    \"no_responders\":true,\"protocol\":1,\"lang\":\"rust\",\"version\":\"0\"}\r\nPING\r\n";

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A connection that many small frames share: they are collected until [`flush`](Self::flush).
pub(crate) struct Connection {
    wire: Box<dyn Wire>,
    incoming: BytesMut,
    outgoing: Vec<u8>,
}

impl Connection {
    /// Connects and says hello.
    ///
    /// # Errors
    /// When the server is not there, or refuses.
    pub(crate) async fn open(
        address: SocketAddr,
        tls: Option<&TlsConnector>,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let wire = Box::new(stream);
        let mut this = Self { wire, incoming: BytesMut::new(), outgoing: Vec::new() };
        while !this.next(|frame| frame == Frame::Info)? {
            this.fill().await?;
        }
        if let Some(tls) = tls {
            ensure!(this.incoming.is_empty(), "the server spoke before the handshake");
            let name = ServerName::try_from("localhost")?;
            this.wire = Box::new(tls.connect(name, this.wire).await?);
        }
        this.outgoing.extend_from_slice(HELLO);
        this.settle().await.context("the server did not greet")?;
        Ok(this)
    }

    /// Subscribes, and waits until the server has heard of it.
    ///
    /// # Errors
    /// When the connection ends, or the server refuses.
    pub(crate) async fn subscribe(&mut self, subject: &str) -> anyhow::Result<()> {
        put_subscribe(&mut self.outgoing, subject);
        self.outgoing.extend_from_slice(b"PING\r\n");
        self.settle().await
    }

    /// The frames that the next flush sends.
    pub(crate) fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    /// Sends what was collected.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        if !self.outgoing.is_empty() {
            self.wire.write_all(&self.outgoing).await?;
            self.wire.flush().await?;
            self.outgoing.clear();
        }
        Ok(())
    }

    /// Waits for bytes.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) async fn fill(&mut self) -> anyhow::Result<()> {
        self.incoming.reserve(READ_BYTES);
        let read = self.wire.read_buf(&mut self.incoming).await?;
        ensure!(read > 0, "the server has closed the connection");
        Ok(())
    }

    /// Hands every message that has come to `take`, with the frames of the next flush; answers the
    /// server's pings there.
    ///
    /// # Errors
    /// When the server complains, or `take` does.
    pub(crate) fn messages(
        &mut self,
        mut take: impl FnMut(&[u8], &[u8], &mut Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut done = 0;
        while let Some((frame, length)) = frame(self.incoming.get(done..).unwrap_or(&[]))? {
            done += length;
            match frame {
                Frame::Message { subject, payload } => take(subject, payload, &mut self.outgoing)?,
                Frame::Ping => self.outgoing.extend_from_slice(b"PONG\r\n"),
                Frame::Error(complaint) => bail!("{}", String::from_utf8_lossy(complaint)),
                Frame::Info | Frame::Pong | Frame::Ok => {}
            }
        }
        self.incoming.advance(done);
        Ok(())
    }

    /// Asks a service of the server; the answer's JSON. For a connection that has subscribed to
    /// `inbox` and to nothing else.
    ///
    /// # Errors
    /// When the connection ends, or the answer is no JSON.
    pub(crate) async fn ask(
        &mut self,
        service: &str,
        question: &Value,
        inbox: &str,
    ) -> anyhow::Result<Value> {
        let question = question.to_string();
        put_publish(
            &mut self.outgoing,
            format_args!("{service}"),
            Some(format_args!("{inbox}")),
            question.as_bytes(),
        );
        self.flush().await?;
        let mut answer = None;
        loop {
            self.messages(|_, payload, _| {
                answer = Some(payload.to_vec());
                Ok(())
            })?;
            match answer {
                Some(answer) if answer.is_empty() => bail!("nobody answers {service}"),
                Some(answer) => return Ok(serde_json::from_slice(&answer)?),
                None => self.fill().await?,
            }
        }
    }

    /// Sends what was collected, a ping last, and waits for its answer.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.flush().await?;
        while !self.next(|frame| frame == Frame::Pong)? {
            self.fill().await?;
        }
        Ok(())
    }

    /// Skips frames up to the wanted one; false if it has not come.
    fn next(&mut self, is_wanted: impl Fn(Frame<'_>) -> bool) -> anyhow::Result<bool> {
        while let Some((frame, length)) = frame(&self.incoming)? {
            if let Frame::Error(complaint) = frame {
                bail!("{}", String::from_utf8_lossy(complaint));
            }
            let found = is_wanted(frame);
            self.incoming.advance(length);
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
