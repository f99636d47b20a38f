//! With what a session begins: the chat that its client wants, and what passed while it was away.

use std::sync::Arc;

use daisi_ws_domain::{
    frame::{Place, Resumption},
    ids::ChatId,
    resume::{Cursor, NoCursor, NotResumed},
};

use crate::application::hub::{prepared_message::PreparedMessage, session::Session};

use super::{ConnectError, Connector};

/// What a client wants beside its session.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// A chat, in place of the one that is remembered.
    pub chat: Option<ChatId>,
    /// What it missed since then; or what it brought is no cursor.
    pub resume: Option<Result<Cursor, NoCursor>>,
    /// It opens a second socket when it is asked to, and this one may be such.
    pub moves: bool,
}

/// With what a session begins.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// Where it stands, if that is known.
    pub(crate) place: Option<Place>,
    /// What became of the wish to resume.
    pub(crate) resumption: Option<Resumption>,
    /// What it missed.
    pub(crate) replay: Vec<Arc<PreparedMessage>>,
    /// It is told no other place than that: what lies beyond was not read.
    pub(crate) stays: bool,
}

impl Connector {
    /// Finds out where the session begins, once all that is stored comes to it. Ends early if the session is ended.
    pub(super) async fn start(&self, session: &Session, wishes: &Wishes) -> Result<Start, ConnectError> {
        let start = match &wishes.resume {
            None => self.fresh(session, None),
            Some(Err(NoCursor)) => {
                self.replayer.note_malformed();
                self.fresh(session, Some(NotResumed::Malformed))
            }
            Some(Ok(cursor)) => tokio::select! {
                biased;
                reason = session.closed() => return Err(reason.into()),
                start = self.resume(session, cursor) => start,
            },
        };
        Ok(start)
    }

    async fn resume(&self, session: &Session, cursor: &Cursor) -> Start {
        match self.replayer.resume(cursor, &session.routes()).await {
            Ok(resumed) => {
                session.mailbox().begin_after(resumed.stream, resumed.upto);
                // Each frame of the replay takes the client further.
                let safe = if resumed.events.is_empty() { resumed.upto } else { cursor.safe };
                Start {
                    place: Some(Place::new(resumed.stream, safe)),
                    resumption: Some(Resumption::Resumed(resumed.events.len())),
                    replay: resumed.events,
                    stays: false,
                }
            }
            Err(reason) if reason.may_pass() => {
                // As long as the stream is that of its cursor, the cursor is its place there.
                let settled = self.entries.hub.floor().filter(|settled| cursor.is_in(settled.stream));
                settled.into_iter().for_each(|settled| session.mailbox().begin_after(settled.stream, 0));
                Start {
                    place: Some(Place { stream: cursor.stream().into(), safe: cursor.safe }),
                    resumption: Some(Resumption::Not(reason)),
                    replay: Vec::new(),
                    stays: true,
                }
            }
            Err(reason) => self.fresh(session, Some(reason)),
        }
    }

    /// What was settled by now is none of its business.
    fn fresh(&self, session: &Session, reason: Option<NotResumed>) -> Start {
        let settled = self.entries.hub.floor();
        if let Some(settled) = settled {
            session.mailbox().begin_after(settled.stream, settled.seq);
        }
        Start {
            place: settled.map(|settled| Place::new(settled.stream, settled.seq)),
            resumption: reason.map(Resumption::Not),
            ..Start::default()
        }
    }
}
