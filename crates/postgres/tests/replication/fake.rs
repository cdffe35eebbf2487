//! Servers that do not do as the protocol says, spoken for by a few bytes of it.

use obyra_evidence::{Failure, text::postgres, text::replication as say};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::{BaseBackupOptions, StartWal, WalEvent, Walsender};
use obyra_postgres::wal::{Lsn, TimelineId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn error(severity: &str, code: &str, words: &[u8]) -> Vec<u8> {
    let fields = format!("S{severity}\0V{severity}\0C{code}\0M");
    message(b'E', &[fields.as_bytes(), words, b"\0\0"].concat())
}

fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// One packet with a length in front, after a tag unless it is the first.
async fn packet(client: &mut TcpStream, tag: bool) -> std::io::Result<()> {
    if tag {
        client.read_u8().await?;
    }
    let length = client.read_u32().await?;
    client.read_exact(&mut vec![0; length as usize - 4]).await?;
    Ok(())
}

/// Answers the start with one thing and every command with another, then hangs up.
async fn serve(client: &mut TcpStream, start: &[u8], answer: &[u8]) -> std::io::Result<()> {
    packet(client, false).await?;
    client.write_all(start).await?;
    if !answer.is_empty() {
        packet(client, true).await?;
        client.write_all(answer).await?;
    }
    // Lets the client read to the end before the connection goes.
    client.shutdown().await?;
    client.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn server(start: Vec<u8>, answer: Vec<u8>) -> Conninfo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = serve(&mut client, &start, &answer).await;
        }
    });
    Conninfo::parse(&format!("host=127.0.0.1 port={port} user=u password=secret sslmode=disable")).unwrap()
}

/// A server that lets everybody in.
fn open(version: &str) -> Vec<u8> {
    [message(b'R', &[0; 4]), parameter("server_version", version), message(b'K', &[0; 8]), ready()].concat()
}

async fn not_let_in(start: Vec<u8>) -> Failure {
    let failure = Walsender::connect(&server(start, Vec::new()).await).await.unwrap_err();
    assert!(!format!("{failure:?}").contains("secret"), "{failure:?}");
    failure
}

#[tokio::test]
async fn odd_starts() {
    // Words in the server's own encoding, which it speaks before ours is settled.
    let failure = not_let_in(error("FATAL", "57P03", b"el servidor est\xE1 arrancando")).await;
    assert_eq!(failure.what.code(), postgres::NOT_READY);
    assert!(failure.why.unwrap().contains("arrancando"));
    assert_eq!(not_let_in(open("13.16")).await.what.code(), postgres::TOO_OLD);
    assert_eq!(not_let_in(open("devel")).await.what.code(), postgres::GREETING);
    assert_eq!(not_let_in(b"HTTP/1.1 400 Bad Request".to_vec()).await.what.code(), postgres::NOT_POSTGRESQL);
    assert_eq!(not_let_in(Vec::new()).await.what.code(), postgres::HUNG_UP);
    assert_eq!(not_let_in(message(b'R', &[0; 4])).await.what.code(), postgres::HUNG_UP);
    assert_eq!(not_let_in(message(b'D', &[0; 2])).await.what.code(), postgres::HANDSHAKE);
    // Kerberos, then an unknown SASL mechanism, then SCRAM with a first message that is none.
    assert_eq!(not_let_in(message(b'R', &[0, 0, 0, 7])).await.what.code(), postgres::HANDSHAKE);
    assert_eq!(not_let_in(message(b'R', b"\0\0\0\x0AOTHER\0\0")).await.what.code(), postgres::HANDSHAKE);
    let scram = [message(b'R', b"\0\0\0\x0ASCRAM-SHA-256\0\0"), message(b'R', b"\0\0\0\x0Br=bad")].concat();
    assert_eq!(not_let_in(scram).await.what.code(), postgres::HANDSHAKE);
}

#[tokio::test]
async fn a_standby_is_known_by_what_it_reports() {
    let start = |standby: &str, read_only: &str| {
        let parameters =
            [parameter("in_hot_standby", standby), parameter("default_transaction_read_only", read_only)];
        [message(b'R', &[0; 4]), parameter("server_version", "16.4"), parameters.concat(), ready()].concat()
    };
    for (standby, read_only, wanted, suits) in [
        ("on", "off", "standby", true),
        ("on", "off", "primary", false),
        ("off", "off", "standby", false),
        ("off", "on", "read-write", false),
        ("off", "on", "primary", true),
    ] {
        let target = server(start(standby, read_only), Vec::new()).await;
        let port = target.hosts()[0].port;
        let target =
            format!("host=127.0.0.1 port={port} user=u sslmode=disable target_session_attrs={wanted}");
        let found = Walsender::connect(&Conninfo::parse(&target).unwrap()).await;
        assert_eq!(found.is_ok(), suits, "{standby} {read_only} {wanted}");
    }
}

/// Why a stream of WAL fails that begins with this.
async fn stream(answer: Vec<u8>) -> Failure {
    let mut walsender = Walsender::connect(&server(open("16.4"), answer).await).await.unwrap();
    let wanted = StartWal { slot: None, timeline: TimelineId(1), start: Lsn(0x100) };
    let mut stream = match walsender.start_wal(wanted).await {
        Ok(stream) => stream,
        Err(failure) => return failure,
    };
    loop {
        match stream.next().await {
            Ok(WalEvent::Data { .. } | WalEvent::KeepAlive { .. }) => {}
            Ok(end) => panic!("{end:?}"),
            Err(failure) => return failure,
        }
    }
}

fn wal(start: u64, bytes: &[u8]) -> Vec<u8> {
    message(b'd', &[b"w", &start.to_be_bytes()[..], &[0; 16], bytes].concat())
}

#[tokio::test]
async fn wal_with_a_gap_is_not_taken() {
    let both = || message(b'W', &[0; 3]);
    for (answer, why) in [
        ([both(), wal(0x100, b"ab"), wal(0x103, b"cd")].concat(), "WAL of 0/103 came in place of 0/102"),
        ([both(), wal(0x80, b"ab")].concat(), "WAL of 0/80 came in place of 0/100"),
        ([both(), message(b'd', b"x")].concat(), "malformed message"),
        ([both(), message(b'D', &[0; 2])].concat(), "unexpected message"),
        ([both(), message(b'c', b""), ready()].concat(), "unexpected message"),
        ([both(), both()].concat(), "unexpected message"),
        ([both(), b"d\0\0\0\x20w".to_vec()].concat(), "unexpected end of file"),
        ([both(), wal(0x100, b"ab")].concat(), "the server closed the connection"),
        (message(b'C', b"SELECT\0"), "unexpected message"),
        // What the server said last is why, also when it then hung up.
        ([both(), error("FATAL", "57P01", b"terminating")].concat(), "FATAL 57P01: terminating"),
        ([error("ERROR", "58P01", b"removed"), ready()].concat(), "ERROR 58P01: removed"),
    ] {
        let failure = stream(answer).await;
        assert!(failure.why.as_ref().unwrap().contains(why), "{why}: {failure:?}");
        assert!(failure.mend.is_some(), "{why}");
    }
}

#[tokio::test]
async fn a_backup_without_its_end_is_none() {
    let row = |values: [&[u8]; 2]| {
        let fields = values.map(|value| [&u32::try_from(value.len()).unwrap().to_be_bytes(), value].concat());
        [message(b'D', &[&[0, 2], &fields.concat()[..]].concat()), message(b'C', b"SELECT\0")].concat()
    };
    let place = || row([b"0/100", b"1"]);
    let copy = || message(b'H', &[0; 3]);
    let piece = |body: &[u8]| message(b'd', body);
    let corrupt = || [error("ERROR", "XX001", b"checksum verification failure"), ready()].concat();
    for (answer, why) in [
        // Damage counts as such only behind the end; before it, the backup itself has failed.
        ([place(), corrupt()].concat(), "ERROR XX001"),
        ([place(), ready()].concat(), "unexpected message"),
        (row([b"0-100", b"1"]), "unexpected message"),
        ([place(), row([b"x", b"y"])].concat(), "unexpected message"),
        ([copy(), piece(b"nx.tar\0/srv/t\0")].concat(), "unexpected message"),
        ([copy(), piece(b"?")].concat(), "malformed message"),
        ([copy(), piece(b"nbase.tar\0\0"), piece(b"dabc")].concat(), "the server closed the connection"),
    ] {
        let mut walsender = Walsender::connect(&server(open("16.4"), answer).await).await.unwrap();
        let mut backup = walsender.base_backup(&BaseBackupOptions::default()).await.unwrap();
        let failure = loop {
            match backup.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{why}"),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.what.code(), say::BASE_BACKUP);
        assert!(failure.why.as_ref().unwrap().contains(why), "{why}: {failure:?}");
    }
}
