//! A proxy before the S3 server that does to requests what networks and busy stores do.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It takes a moment, and its answer comes in pieces.
    Slow,
    /// It is answered with this status, and never reaches the store.
    Refused(u16),
    /// It is refused, since the object's retention has not ended.
    Retained,
    /// It is done, and answered with 500 all the same.
    DoneAndDenied,
    /// The connection is reset in the middle of the request.
    ResetBefore,
    /// It is done, and the connection is reset before the answer.
    ResetAfter,
    /// The answer ends in its middle.
    Truncated,
    /// The answer is shorter than the object, and says so.
    Shortened,
    /// A byte of the answer is another.
    Corrupted,
    /// A byte of what is sent is another.
    CorruptedUpload,
}

impl Fault {
    /// Those that may pass by trying again, without anybody's knowing more.
    pub const PASSING: [Fault; 9] = [
        Fault::Slow,
        Fault::Refused(500),
        Fault::Refused(503),
        Fault::DoneAndDenied,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Truncated,
        Fault::CorruptedUpload,
        Fault::Refused(429),
    ];
}

/// A request, as far as faults are chosen by it.
pub struct Request {
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// Whether it is a creation: a put that replaces nothing.
    pub creates: bool,
    /// Counted from 0, over all.
    pub number: u64,
}

/// As Google's store puts it.
const RETAINED: &str = "Object 'x' is subject to bucket's retention policy or object retention and cannot be deleted \
    or overwritten until 2027-01-02T03:04:05.678-08:00";

type Choice = dyn Fn(&Request) -> Option<Fault> + Send + Sync;

/// A running proxy.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

struct State {
    store: SocketAddr,
    choice: Mutex<Arc<Choice>>,
    requests: AtomicU64,
    faults: AtomicU64,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    /// One that lets everything pass, until it is told otherwise.
    pub async fn start(store: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            store: SocketAddr::from(([127, 0, 0, 1], store)),
            choice: Mutex::new(Arc::new(|_: &Request| None)),
            requests: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        });
        let serving = state.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = serving.clone();
                tokio::spawn(async move { state.serve(client).await });
            }
        });
        Proxy { port, state, serving }
    }

    /// Chooses what happens from now on.
    pub fn choose(&self, choice: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) {
        *self.state.choice.lock().unwrap() = Arc::new(choice);
    }

    /// Does this to the first requests of a method whose target contains something.
    pub fn next(&self, times: u64, method: &'static str, part: &str, fault: Fault) {
        let (left, part) = (AtomicU64::new(times), part.to_owned());
        self.choose(move |request| {
            let hit = request.method == method && request.target.contains(&part);
            let took =
                hit && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            took.then_some(fault)
        });
    }

    /// How many requests came, and to how many something happened.
    pub fn counts(&self) -> (u64, u64) {
        (self.state.requests.load(Ordering::SeqCst), self.state.faults.load(Ordering::SeqCst))
    }
}

impl State {
    /// One request for each connection: the store is asked to close it.
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some((head, mut body)) = read_request(&mut client).await? else { return Ok(()) };
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let request = Request {
            method: method.to_owned(),
            target: target.to_owned(),
            creates: head.to_ascii_lowercase().contains("if-none-match: *"),
            number: self.requests.fetch_add(1, Ordering::SeqCst),
        };
        let choice = self.choice.lock().unwrap().clone();
        let fault = choice(&request);
        if fault.is_some() {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            Some(Fault::Refused(status)) => return answer(&mut client, status, "By the proxy.").await,
            Some(Fault::Retained) => return answer(&mut client, 403, RETAINED).await,
            Some(Fault::ResetBefore) => return reset(client),
            Some(Fault::CorruptedUpload) if !body.is_empty() => {
                let middle = body.len() / 2;
                body[middle] ^= 1;
            }
            _ => {}
        }
        let mut store = TcpStream::connect(self.store).await?;
        store.write_all(closing(&head).as_bytes()).await?;
        store.write_all(&body).await?;
        let mut said = Vec::new();
        store.read_to_end(&mut said).await?;
        let body_at = said.windows(4).position(|end| end == b"\r\n\r\n").map_or(said.len(), |at| at + 4);
        let middle = body_at + (said.len() - body_at) / 2;
        match fault {
            Some(Fault::DoneAndDenied) => return answer(&mut client, 500, "By the proxy.").await,
            Some(Fault::ResetAfter) => return reset(client),
            Some(Fault::Truncated) if middle > body_at => {
                client.write_all(&said[..middle]).await?;
                return client.shutdown().await;
            }
            Some(Fault::Shortened) if middle > body_at => {
                let length = |text: &str| text.to_ascii_lowercase().starts_with("content-length:");
                let head = String::from_utf8_lossy(&said[..body_at]).into_owned();
                let kept: Vec<&str> = head.trim_end().split("\r\n").filter(|line| !length(line)).collect();
                let head = format!("{}\r\ncontent-length: {}\r\n\r\n", kept.join("\r\n"), middle - body_at);
                client.write_all(head.as_bytes()).await?;
                said = said[body_at..middle].to_vec();
            }
            Some(Fault::Corrupted) if middle > body_at => said[middle] ^= 1,
            Some(Fault::Slow) => {
                for piece in said.chunks(said.len().div_ceil(4).max(1)) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    client.write_all(piece).await?;
                }
                return client.shutdown().await;
            }
            _ => {}
        }
        client.write_all(&said).await?;
        client.shutdown().await
    }
}

/// The head, and the body; `None` if the connection ends before.
async fn read_request(client: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let body_at = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..body_at]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = bytes.split_off(body_at);
    while body.len() < length.unwrap_or(0) {
        if client.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((head, body)))
}

/// The head, asking for the connection to be closed after the answer.
fn closing(head: &str) -> String {
    let lines =
        head.trim_end().split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    lines.chain(["connection: close", "", ""]).collect::<Vec<_>>().join("\r\n")
}

async fn answer(client: &mut TcpStream, status: u16, words: &str) -> io::Result<()> {
    let code = match status {
        403 => "AccessDenied",
        429 | 503 => "SlowDown",
        _ => "InternalError",
    };
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{words}</Message></Error>");
    let head =
        format!("HTTP/1.1 {status} Fault\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    client.write_all(format!("{head}{body}").as_bytes()).await?;
    client.shutdown().await
}

fn reset(client: TcpStream) -> io::Result<()> {
    client.set_zero_linger()
}
