//! The protocol's messages over a connection: large reads whose bytes are handed on without a copy,
//! and writes that a cancelled future does not tear apart.

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::backend::{Header, Message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::socket::Duplex;

/// Room for several of a server's messages: 32 KiB in a base backup, 128 KiB of WAL.
const READ_BYTES: usize = 256 * 1024;

/// With less room than this left, a new buffer begins.
const ROOM_BYTES_MIN: usize = 64 * 1024;

/// The server allocates no more for one message.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Replication's own message, which the protocol's library does not know: data in both directions.
const COPY_BOTH_TAG: u8 = b'W';

/// A message of the server.
pub(super) enum Incoming {
    /// From now on, data flows in both directions.
    CopyBoth,
    /// Any other.
    Message(Message),
}

/// A connection that speaks in messages.
pub(super) struct Wire {
    stream: Box<dyn Duplex>,
    inbox: BytesMut,
    outbox: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Duplex>) -> Wire {
        Wire { stream, inbox: BytesMut::new(), outbox: BytesMut::new() }
    }

    /// Where messages to the server are written; [`Wire::flush`] sends them.
    pub(super) fn outbox(&mut self) -> &mut BytesMut {
        &mut self.outbox
    }

    /// Sends what is in the outbox. If it is cancelled, the next call goes on where it was.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            if self.stream.write_buf(&mut self.outbox).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.stream.flush().await
    }

    /// The next message; `None` when the server has closed the connection. If it is cancelled,
    /// nothing is lost.
    pub(super) async fn receive(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            if let Some(message) = decode(&mut self.inbox)? {
                return Ok(Some(message));
            }
            if self.inbox.capacity() - self.inbox.len() < ROOM_BYTES_MIN {
                self.inbox.reserve(READ_BYTES);
            }
            if self.stream.read_buf(&mut self.inbox).await? == 0 {
                let whole = self.inbox.is_empty();
                return if whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Says goodbye: nothing more is sent.
    pub(super) async fn shut_down(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

/// Takes a message from the front of the buffer; `None` if it is not there in full yet.
pub(super) fn decode(inbox: &mut BytesMut) -> io::Result<Option<Incoming>> {
    let Some(header) = Header::parse(inbox)? else { return Ok(None) };
    let bytes = usize::try_from(header.len()).unwrap_or(usize::MAX);
    if bytes > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of more than a gigabyte"));
    }
    // The library would make room for what is announced; here it is made only for what comes.
    if inbox.len() <= bytes {
        return Ok(None);
    }
    if header.tag() == COPY_BOTH_TAG {
        let _formats = inbox.split_to(bytes + 1);
        return Ok(Some(Incoming::CopyBoth));
    }
    Ok(Message::parse(inbox)?.map(Incoming::Message))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A description of each message, in order.
    fn read(pieces: &[&[u8]]) -> io::Result<Vec<String>> {
        let mut inbox = BytesMut::new();
        let mut read = Vec::new();
        for piece in pieces {
            inbox.extend_from_slice(piece);
            while let Some(incoming) = decode(&mut inbox)? {
                read.push(match incoming {
                    Incoming::CopyBoth => "both".to_owned(),
                    Incoming::Message(Message::CopyData(body)) => format!("data {:?}", body.into_bytes()),
                    Incoming::Message(Message::CopyDone) => "done".to_owned(),
                    Incoming::Message(_) => "other".to_owned(),
                });
            }
        }
        Ok(read)
    }

    const CONVERSATION: &[u8] = b"W\0\0\0\x07\0\0\0d\0\0\0\x06abd\0\0\0\x04c\0\0\0\x04Z\0\0\0\x05I";

    #[test]
    fn a_message_of_absurd_length_is_refused_before_room_is_made() {
        assert!(read(&[b"d\x7f\xff\xff\xff"]).is_err());
        assert!(read(&[b"d\xff\xff\xff\xff"]).is_err());
        assert!(read(&[b"d\0\0\0\x03"]).is_err());
        assert!(read(&[b"?\0\0\0\x04"]).is_err());
    }

    proptest! {
        #[test]
        fn messages_do_not_depend_on_how_they_arrive(cuts in prop::collection::vec(0..CONVERSATION.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&CONVERSATION[from..cut]);
                from = cut;
            }
            pieces.push(&CONVERSATION[from..]);
            let expected = ["both", "data b\"ab\"", "data b\"\"", "done", "other"];
            prop_assert_eq!(read(&pieces).unwrap(), expected);
        }

        #[test]
        fn arbitrary_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[&bytes]);
        }
    }
}
