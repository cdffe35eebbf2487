//! Servers that are hard to come by in a test, spoken for by a few bytes of protocol: an old one,
//! a standby, one that is starting.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

use obyra_evidence::{Failure, text::postgres as say};
use obyra_postgres::{Conninfo, Limits, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the server says of itself.
#[derive(Clone, Copy)]
struct Says {
    version: &'static str,
    in_recovery: &'static str,
    read_only: &'static str,
}

const PRIMARY: Says = Says { version: "160004", in_recovery: "f", read_only: "f" };
const STANDBY: Says = Says { version: "160004", in_recovery: "t", read_only: "t" };
const OLD: Says = Says { version: "130016", in_recovery: "f", read_only: "f" };

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

const READY: &[u8] = b"I";

fn row(values: &[&str]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap().to_be_bytes();
    let mut description = count.to_vec();
    let mut data = count.to_vec();
    for value in values {
        description.extend(b"c\0");
        // No table, no column, `text`, of any length, no modifier, as text.
        description.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        data.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        data.extend(value.as_bytes());
    }
    [message(b'T', &description), message(b'D', &data)].concat()
}

/// Reads the start-up packet. A request for TLS, which is the only one of 8 bytes, is refused first.
async fn startup(client: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let length = client.read_u32().await?;
        client.read_exact(&mut vec![0; length as usize - 4]).await?;
        if length > 8 {
            return Ok(());
        }
        client.write_all(b"N").await?;
    }
}

async fn speak(mut client: TcpStream, says: Says) -> std::io::Result<()> {
    startup(&mut client).await?;
    client.write_all(&[message(b'R', &[0; 4]), message(b'Z', READY)].concat()).await?;
    loop {
        let _tag = client.read_u8().await?;
        let length = client.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).await?;
        let mut answer = Vec::new();
        if String::from_utf8_lossy(&body).contains("server_version_num") {
            answer.extend(row(&[says.version, says.in_recovery, says.read_only]));
        }
        answer.extend(message(b'C', b"SET\0"));
        answer.extend(message(b'Z', READY));
        client.write_all(&answer).await?;
    }
}

async fn server(says: Says) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(speak(client, says));
        }
    });
    port
}

/// A server that refuses everybody with one error.
async fn refusing(code: &'static str, words: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = startup(&mut client).await;
            let body = format!("SFATAL\0VFATAL\0C{code}\0M{words}\0\0");
            let _ = client.write_all(&message(b'E', body.as_bytes())).await;
        }
    });
    port
}

/// Something else listens on the port.
async fn web_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 512]).await;
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    port
}

async fn connect(ports: &[u16], attrs: &str) -> Result<Session, Failure> {
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let text = format!("host={hosts} port={ports} user=u target_session_attrs={attrs}");
    Session::connect(&Conninfo::parse(&text).unwrap(), Limits::default()).await
}

#[tokio::test]
async fn a_standby_is_found_and_preferred() {
    let (primary, standby) = (server(PRIMARY).await, server(STANDBY).await);
    for (attrs, in_recovery) in [
        ("any", false),
        ("primary", false),
        ("read-write", false),
        ("standby", true),
        ("read-only", true),
        ("prefer-standby", true),
    ] {
        assert_eq!(connect(&[primary, standby], attrs).await.unwrap().in_recovery(), in_recovery, "{attrs}");
    }
    assert!(!connect(&[primary], "prefer-standby").await.unwrap().encrypted());
    assert!(!connect(&[primary, primary], "prefer-standby").await.unwrap().in_recovery());
    let failure = connect(&[standby], "primary").await.unwrap_err();
    assert_eq!(failure.what.code(), say::WRONG_KIND_OF_SERVER);
}

#[tokio::test]
async fn an_old_server_is_refused() {
    let failure = connect(&[server(OLD).await], "any").await.unwrap_err();
    assert_eq!(failure.what.code(), say::TOO_OLD);
    assert_eq!(failure.what.fields()["version"], "13.16");
}

#[tokio::test]
async fn another_program_on_the_port_is_named_as_such() {
    let failure = connect(&[web_server().await], "any").await.unwrap_err();
    assert_eq!(failure.what.code(), say::NOT_POSTGRESQL);
    assert!(failure.mend.is_some());
}

#[tokio::test]
async fn the_next_host_is_asked_where_this_one_is_not_ready() {
    let starting = refusing("57P03", "the database system is starting up").await;
    let crowded = refusing("53300", "sorry, too many clients already").await;
    for attrs in ["any", "prefer-standby"] {
        // `prefer` has tried it with TLS and without, and `prefer-standby` twice: the reason is one.
        assert_eq!(connect(&[starting], attrs).await.unwrap_err().what.code(), say::NOT_READY);
    }
    assert_eq!(connect(&[crowded], "any").await.unwrap_err().what.code(), say::TOO_MANY_CONNECTIONS);
    let ready = server(PRIMARY).await;
    connect(&[starting, crowded, ready], "any").await.unwrap();

    // Wrong credentials are wrong everywhere: asking on would only count more failed logins.
    let wrong = refusing("28P01", "password authentication failed").await;
    assert_eq!(connect(&[wrong, ready], "any").await.unwrap_err().what.code(), say::WRONG_PASSWORD);
}
