//! What is inside the data of a replication stream: pure functions over bytes, in and out
//! (<https://www.postgresql.org/docs/current/protocol-replication.html>).

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::StandbyStatus;
use crate::wal::Lsn;

/// A message that is not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message from the server: {}", self.0)
    }
}

/// Inside the data of a base backup, from PostgreSQL 15 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BackupMessage {
    /// An archive begins. The main data directory has no location.
    Archive { name: String, location: Option<String> },
    /// The manifest begins.
    Manifest,
    /// A piece of what began last.
    Data(Bytes),
    /// So many bytes were read so far.
    Progress(u64),
}

impl BackupMessage {
    pub(super) fn decode(mut body: Bytes) -> Result<BackupMessage, Malformed> {
        match body.try_get_u8() {
            Ok(b'n') => {
                let name = text(&mut body)?;
                let location = text(&mut body)?;
                nothing_left(&body)?;
                Ok(BackupMessage::Archive { name, location: Some(location).filter(|l| !l.is_empty()) })
            }
            Ok(b'd') => Ok(BackupMessage::Data(body)),
            Ok(b'm') => nothing_left(&body).map(|()| BackupMessage::Manifest),
            Ok(b'p') => {
                let bytes = body.try_get_u64().map_err(|_| Malformed("progress"))?;
                nothing_left(&body).map(|()| BackupMessage::Progress(bytes))
            }
            _ => Err(Malformed("kind of backup message")),
        }
    }
}

/// Inside the data of a stream of WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WalMessage {
    Data { start: Lsn, server_end: Lsn, bytes: Bytes },
    KeepAlive { server_end: Lsn, reply_requested: bool },
}

impl WalMessage {
    pub(super) fn decode(mut body: Bytes) -> Result<WalMessage, Malformed> {
        let short = |_| Malformed("header of a WAL message");
        match body.try_get_u8() {
            Ok(b'w') => {
                let start = Lsn(body.try_get_u64().map_err(short)?);
                let server_end = Lsn(body.try_get_u64().map_err(short)?);
                let _sent_at = body.try_get_u64().map_err(short)?;
                if start.0.checked_add(body.len() as u64).is_none() {
                    return Err(Malformed("position of WAL"));
                }
                Ok(WalMessage::Data { start, server_end, bytes: body })
            }
            Ok(b'k') => {
                let server_end = Lsn(body.try_get_u64().map_err(short)?);
                let _sent_at = body.try_get_u64().map_err(short)?;
                let reply_requested = body.try_get_u8().map_err(short)? != 0;
                nothing_left(&body).map(|()| WalMessage::KeepAlive { server_end, reply_requested })
            }
            _ => Err(Malformed("kind of WAL message")),
        }
    }
}

/// Writes a standby's status, as the data of a copy. `now` is in microseconds since the year 2000; `ask`
/// wants an answer.
pub(super) fn encode_status(status: StandbyStatus, now: i64, ask: bool, outbox: &mut BytesMut) {
    let StandbyStatus { written, flushed, applied } = status;
    outbox.put_u8(b'd');
    // The length counts itself: tag, three positions, the time, whether an answer is wanted.
    outbox.put_i32(4 + 1 + 4 * 8 + 1);
    outbox.put_u8(b'r');
    outbox.put_u64(written.0);
    outbox.put_u64(flushed.0);
    outbox.put_u64(applied.0);
    outbox.put_i64(now);
    outbox.put_u8(ask.into());
}

/// A text that ends with a zero.
fn text(body: &mut Bytes) -> Result<String, Malformed> {
    let end = body.iter().position(|byte| *byte == 0).ok_or(Malformed("text without an end"))?;
    let bytes = body.split_to(end);
    body.advance(1);
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("text that is not UTF-8"))
}

fn nothing_left(body: &Bytes) -> Result<(), Malformed> {
    if body.is_empty() { Ok(()) } else { Err(Malformed("bytes behind its end")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_of_a_base_backup() {
        let decode = |bytes: &'static [u8]| BackupMessage::decode(Bytes::from_static(bytes));
        let archive = |name: &str, location: Option<&str>| BackupMessage::Archive {
            name: name.to_owned(),
            location: location.map(str::to_owned),
        };
        assert_eq!(decode(b"nbase.tar\0\0"), Ok(archive("base.tar", None)));
        assert_eq!(decode(b"n16384.tar.zst\0/srv/t\0"), Ok(archive("16384.tar.zst", Some("/srv/t"))));
        assert_eq!(decode(b"m"), Ok(BackupMessage::Manifest));
        assert_eq!(decode(b"dabc"), Ok(BackupMessage::Data(Bytes::from_static(b"abc"))));
        assert_eq!(decode(b"p\0\0\0\0\0\0\x01\0"), Ok(BackupMessage::Progress(256)));
        for bad in [
            &b""[..],
            b"x",
            b"nbase.tar",
            b"nbase.tar\0",
            b"nbase.tar\0\0more",
            b"n\xff\0\0",
            b"mmore",
            b"p\0",
            b"p\0\0\0\0\0\0\x01\0more",
        ] {
            assert!(BackupMessage::decode(Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn messages_of_a_stream_of_wal() {
        let mut body = BytesMut::new();
        body.put_u8(b'w');
        body.put_u64(0x100);
        body.put_u64(0x200);
        body.put_u64(7);
        body.put_slice(b"wal");
        let data =
            WalMessage::Data { start: Lsn(0x100), server_end: Lsn(0x200), bytes: Bytes::from_static(b"wal") };
        assert_eq!(WalMessage::decode(body.freeze()), Ok(data));
        let mut body = BytesMut::from(&b"k"[..]);
        body.put_u64(0x300);
        body.put_u64(7);
        body.put_u8(1);
        let keepalive = WalMessage::KeepAlive { server_end: Lsn(0x300), reply_requested: true };
        assert_eq!(WalMessage::decode(body.clone().freeze()), Ok(keepalive));
        body.put_u8(0);
        for bad in [&b""[..], b"z", b"w\0\0", b"k\0\0", &body] {
            assert!(WalMessage::decode(Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
        let mut beyond = BytesMut::from(&b"w"[..]);
        beyond.put_u64(u64::MAX);
        beyond.put_slice(&[0; 17]);
        assert!(WalMessage::decode(beyond.freeze()).is_err());
    }

    #[test]
    fn a_status_is_as_long_as_it_says() {
        let mut outbox = BytesMut::new();
        let status = StandbyStatus { written: Lsn(3), flushed: Lsn(2), applied: Lsn(1) };
        encode_status(status, -1, true, &mut outbox);
        assert_eq!(outbox.len(), 1 + 38);
        assert_eq!(outbox[..6], *b"d\0\0\0\x26r");
        assert_eq!(outbox[6..14], 3_u64.to_be_bytes());
        assert_eq!(outbox[38], 1);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for tag in [None, Some(b'n'), Some(b'd'), Some(b'm'), Some(b'p'), Some(b'w'), Some(b'k')] {
                let mut body = BytesMut::new();
                body.extend(tag);
                body.extend_from_slice(&bytes);
                let body = body.freeze();
                let _ = (BackupMessage::decode(body.clone()), WalMessage::decode(body));
            }
        }
    }
}
