//! The task that moves a connection's bytes, and what it hears besides answers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Connection};

use crate::sql::{ServerError, chain};

/// A chatty function must not fill the memory.
const NOTICES_MAX: usize = 1_000;

/// A statement may notice the loss a moment before the task does.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);

/// How long a dropped session may take to say goodbye. With a statement under way it cannot: then the
/// socket is closed, which the server notices, rather than kept until the statement ends.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// How the connection ended.
#[derive(Clone, Debug)]
enum End {
    /// We closed it.
    Closed,
    /// It broke, or the server closed it; its last words.
    Lost(String),
}

pub(super) struct Driver {
    end: watch::Receiver<Option<End>>,
    notices: Arc<Mutex<VecDeque<String>>>,
    /// Its drop tells the task that the session is gone.
    _alive: oneshot::Sender<()>,
}

impl Driver {
    /// Starts the task. It ends by itself when the session is dropped or the server goes away.
    pub(super) fn start<S, T>(connection: Connection<S, T>) -> Driver
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (tell, end) = watch::channel(None);
        let (alive, gone) = oneshot::channel();
        let notices = Arc::new(Mutex::new(VecDeque::new()));
        let inbox = Arc::clone(&notices);
        tokio::spawn(async move {
            let mut moving = pin!(listen(connection, &inbox));
            let ended = tokio::select! {
                ended = &mut moving => ended,
                _ = gone => timeout(GOODBYE_WITHIN, moving).await.unwrap_or(End::Closed),
            };
            let _ = tell.send(Some(ended));
        });
        Driver { end, notices, _alive: alive }
    }

    /// Why the connection was lost, if it was.
    pub(super) async fn last_words(&self) -> Option<String> {
        let mut end = self.end.clone();
        let ended = timeout(LAST_WORDS_WITHIN, end.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(end)) => match &*end {
                Some(End::Lost(words)) => Some(words.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn take_notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    pub(super) async fn ended(mut self) {
        let _ = timeout(GOODBYE_WITHIN, self.end.wait_for(Option::is_some)).await;
    }
}

/// Moves the bytes until the connection ends, and keeps the notices.
async fn listen<S, T>(mut connection: Connection<S, T>, inbox: &Mutex<VecDeque<String>>) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
                if inbox.len() == NOTICES_MAX {
                    inbox.pop_front();
                }
                inbox.push_back(format!("{}: {}", notice.severity(), notice.message()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let said = error.as_db_error().map(ServerError::from);
                return End::Lost(said.map_or_else(|| chain(&error), |said| said.to_string()));
            }
            None => return End::Closed,
        }
    }
}
