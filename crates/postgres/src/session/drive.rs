//! The task that moves a connection's bytes, and what it hears besides answers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Connection};

use crate::sql::{chain, server_words};

/// A chatty function must not fill the memory.
const NOTICES_MAX: usize = 1_000;

/// A statement may notice the loss a moment before the task does.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);

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
}

impl Driver {
    /// Starts the task. It ends by itself when the client is dropped or the server goes away.
    pub(super) fn start<S, T>(mut connection: Connection<S, T>) -> Driver
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (tell, end) = watch::channel(None);
        let notices = Arc::new(Mutex::new(VecDeque::new()));
        let inbox = Arc::clone(&notices);
        tokio::spawn(async move {
            let ended = loop {
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
                        break End::Lost(error.as_db_error().map_or_else(|| chain(&error), server_words));
                    }
                    None => break End::Closed,
                }
            };
            let _ = tell.send(Some(ended));
        });
        Driver { end, notices }
    }

    /// Why the connection was lost, if it was.
    pub(super) async fn last_words(&self) -> Option<String> {
        let mut end = self.end.clone();
        let ended = tokio::time::timeout(LAST_WORDS_WITHIN, end.wait_for(Option::is_some)).await;
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
        let _ = self.end.wait_for(Option::is_some).await;
    }
}
