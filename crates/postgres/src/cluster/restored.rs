//! A server on a restored data directory, in isolation: recovers it, and is there to be asked or dumped.
//!
//! It listens on a private socket only, archives nothing, connects to nobody, and starts none of the jobs
//! that the cluster it came from would start. Its configuration is its own; what the restored directory
//! says in its files is not read. Folder and server are gone when the value is.

mod isolation;
mod log;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use obyra_evidence::{Failure, Progress, text};
use tokio::time::sleep;

use super::install::Installation;
use super::layout::Layout;
use super::places;
use super::room::Room;
use super::server::{self, PidFile, Stop};
use super::user::ServerUser;
use super::{files, start, tools};
use crate::{Conninfo, Result};
pub use isolation::{JOB_LIBRARIES, RestoredSettings};
use log::Reader;
pub use log::Told;

/// Between two looks at the log.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A folder for a restored cluster, on a disk: removed with this value, and by the next one if this program
/// was killed.
#[derive(Debug)]
pub struct Scratch {
    room: Room,
    user: ServerUser,
}

impl Scratch {
    /// Makes one below a folder, or where temporary files go.
    pub async fn claim(parent: Option<&Path>) -> Result<Scratch> {
        let user = ServerUser::choose()?;
        let root = || match parent {
            Some(parent) => places::own_root(parent, &user),
            None => places::private_root(&user),
        };
        let room = Room::claim_in(&user, root).await?;
        Ok(Scratch { room, user })
    }

    /// Where the data directory belongs.
    pub fn data(&self) -> PathBuf {
        self.room.layout.data()
    }

    /// A folder for whatever the server's user has to read and write besides, such as WAL that waits for
    /// recovery.
    pub fn make_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.room.layout.root.join(name);
        files::make_dir(&folder, 0o700)?;
        self.user.own(&folder)?;
        Ok(folder)
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct RestoredOptions {
    /// A superuser of the restored cluster.
    pub superuser: String,
    /// Recovery, and what the server must not go below.
    pub settings: RestoredSettings,
}

/// A server on a restored cluster.
#[derive(Debug)]
pub struct Restored {
    // In the order of their end: the server before its folder.
    server: Server,
    scratch: Scratch,
    installation: Installation,
    superuser: String,
    told: Told,
}

impl Restored {
    /// Starts a server on the cluster that was restored into [`Scratch::data`], and waits until recovery has
    /// ended or paused at its target.
    pub async fn start(
        scratch: Scratch,
        installation: &Installation,
        options: &RestoredOptions,
        progress: &dyn Progress,
    ) -> Result<Restored> {
        let (server, told) = launch(&scratch, installation, &options.settings, progress).await?;
        let superuser = options.superuser.clone();
        Ok(Restored { server, scratch, installation: installation.clone(), superuser, told })
    }

    /// Recovers further, to a later target: only for one that paused.
    pub async fn go_on(self, settings: &RestoredSettings, progress: &dyn Progress) -> Result<Restored> {
        let Restored { server, scratch, installation, superuser, .. } = self;
        server.stop(&scratch).await?;
        let (server, told) = launch(&scratch, &installation, settings, progress).await?;
        Ok(Restored { server, scratch, installation, superuser, told })
    }

    /// What the server said of its recovery.
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// The superuser in a database.
    pub fn admin(&self, database: &str) -> Result<Conninfo> {
        let socket_dir = start::socket_dir(&self.scratch.room.layout, &self.scratch.user)?;
        super::endpoint::trusted(&socket_dir, PORT, &self.superuser, database)
    }

    /// Its programs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.scratch.data()
    }

    /// What the server says.
    pub fn log_file(&self) -> PathBuf {
        self.scratch.room.layout.log()
    }

    /// Stops it with a checkpoint: everything is in its files then.
    pub async fn stop(self) -> Result<Scratch> {
        self.server.stop(&self.scratch).await?;
        Ok(self.scratch)
    }
}

/// It only names the socket, in a folder of its own.
const PORT: u16 = 5432;

/// Ends with this value, at once.
#[derive(Debug)]
struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            // It is our child and nobody has waited for it: the number is still its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            let _ = self.child.wait();
        }
    }
}

impl Server {
    async fn stop(mut self, scratch: &Scratch) -> Result<()> {
        server::stop(&scratch.room.layout, &scratch.user, Stop::Fast).await?;
        let ended = self.child.wait();
        ended.map(drop).map_err(|e| files::failed(&scratch.data(), &e))
    }
}

async fn launch(
    scratch: &Scratch,
    installation: &Installation,
    settings: &RestoredSettings,
    progress: &dyn Progress,
) -> Result<(Server, Told)> {
    let layout = &scratch.room.layout;
    check_major(layout, installation)?;
    let socket_dir = start::socket_dir(layout, &scratch.user)?;
    files::remove_tree(&socket_dir)?;
    files::make_dir(&socket_dir, 0o700)?;
    scratch.user.own(&socket_dir)?;
    let written = isolation::write(scratch, installation, settings, &socket_dir)?;
    let log = layout.log();
    let said_before = files::size(&log);
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
    let output = opened.map_err(|e| files::failed(&log, &e))?;
    let errors = output.try_clone().map_err(|e| files::failed(&log, &e))?;
    let mut command = installation.server_tool("postgres", &scratch.user);
    command.arg("-D").arg(layout.data()).args(written).stdout(output).stderr(errors);
    let program = installation.bin_dir.join("postgres");
    let child = command.spawn().map_err(|e| tools::cannot_run(&program, &scratch.user, &e))?;
    let mut server = Server { child };
    progress.begin(text::cluster::RECOVERING.message(), settings.replay_bytes());
    let pauses = settings.answers_in_recovery;
    let told = watch(&mut server, layout, Reader::new(&log, said_before), pauses, progress).await;
    progress.done();
    Ok((server, told?))
}

/// Waits until recovery has ended, or paused at its target, or the server has ended. One that pauses says that it
/// is ready as soon as it is consistent, which may be long before its target.
async fn watch(
    server: &mut Server,
    layout: &Layout,
    mut reader: Reader,
    pauses: bool,
    progress: &dyn Progress,
) -> Result<Told> {
    loop {
        let ended = server.child.try_wait().map_err(|e| files::failed(&layout.data(), &e))?;
        progress.advance(reader.read()?);
        if let Some(status) = ended {
            return Err(reader.told().failure(&status.to_string()));
        }
        let has_come = if pauses {
            reader.told().paused
        } else {
            PidFile::read(&layout.data())?.is_some_and(|f| f.ready && f.pid == server.child.id())
        };
        if has_come {
            // What it said last may have come between the two looks.
            progress.advance(reader.read()?);
            return Ok(reader.into_told());
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn check_major(layout: &Layout, installation: &Installation) -> Result<()> {
    let data = layout.data();
    let found = files::read(&data.join("PG_VERSION"))?.unwrap_or_default();
    if found.trim() == installation.major.to_string() {
        return Ok(());
    }
    let what = text::cluster::MAJOR_DIFFERS.with("path", data.display()).with("found", found.trim());
    Err(Failure::refused(what.with("major", installation.major)))
}
