//! The example application's page, served by Flask as `obyra_app`.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use obyra_evidence::{Failure, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::commands::{exec, migrate};
use crate::environment::Opened;
use crate::printer::Printer;

/// How long Flask may take to answer for the first time.
const START: Duration = Duration::from_secs(30);

/// The running application. It ends when this is dropped.
pub struct Page {
    child: Child,
    port: u16,
}

impl Page {
    /// Starts the application and waits until it answers.
    pub async fn start(opened: &Opened<'_>) -> Result<Self, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(text::cli::DEMO_PAGE_SILENT).because(e);
        let port = free_port().map_err(|e| failed(&e))?;
        let application = migrate::Application::of(opened).await?;
        let mut command = application.python().command();
        let app = opened.environment.migrations.app.clone().unwrap_or_default();
        command
            .args(["-m", "flask", "--app", &app, "run", "--no-reload", "--port", &port.to_string()])
            .current_dir(&opened.strategy.folder)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true);
        exec::connect_by_environment(&mut command, opened, &opened.role("obyra_app").await?);
        let child = command.spawn().map_err(|e| failed(&e))?;
        let mut page = Page { child, port };
        page.wait().await?;
        Ok(page)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    async fn wait(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let status = self.child.try_wait().ok().flatten();
            if let Some(status) = status {
                return Err(Failure::new(text::cli::DEMO_PAGE_SILENT).because(status));
            }
            match get(self.port, "/healthz").await {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > START => {
                    return Err(Failure::new(text::cli::DEMO_PAGE_SILENT).because(error));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Shows what it answers.
    pub async fn show(&mut self, printer: Printer) -> Result<(), Failure> {
        for path in ["/healthz", "/"] {
            let silent = |e: &dyn std::fmt::Display| Failure::new(text::cli::DEMO_PAGE_SILENT).because(e);
            let mut path = path.to_owned();
            let mut answer = get(self.port, &path).await.map_err(|e| silent(&e))?;
            if let Some(elsewhere) = redirection(&answer) {
                path = elsewhere;
                answer = get(self.port, &path).await.map_err(|e| silent(&e))?;
            }
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let status = head.lines().next().unwrap_or_default();
            if !status.contains(" 200 ") {
                return Err(silent(&status));
            }
            let told = if body.contains("<title>") { title(body) } else { body.trim().to_owned() };
            printer.line(text::cli::DEMO_PAGE.with("path", path).with("status", status).with("told", told));
        }
        Ok(())
    }

    /// Waits until the application ends, which it does by Ctrl-C.
    pub async fn until_it_ends(&mut self) -> Result<(), Failure> {
        self.child.wait().await.map(drop).map_err(|e| Failure::new(text::cli::DEMO_PAGE_SILENT).because(e))
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

async fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Where an answer sends the browser, on the same host.
fn redirection(answer: &str) -> Option<String> {
    let head = answer.split_once("\r\n\r\n").map_or(answer, |(head, _)| head);
    head.lines()
        .find_map(|line| line.strip_prefix("Location: "))
        .filter(|to| to.starts_with('/'))
        .map(str::to_owned)
}

/// What a browser would show in its title bar.
fn title(body: &str) -> String {
    let inner = body.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    inner.map(|(title, _)| title.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
}
