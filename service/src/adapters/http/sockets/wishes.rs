//! What a client wants beside its session, as its query says.

use axum::http::Uri;
use daisi_ws_domain::{ids::ChatId, resume::Cursor, session::SessionKind};

use crate::{
    adapters::http::{credentials::from_query, error::HttpError},
    application::admission::connect::Wishes,
};

/// Reads `chat`, `resume` and `move`; empty counts as not given. A cursor that is none is the client's to hear once it has its
/// session.
///
/// # Errors
/// When the chat is no chat id, or an admin wants one.
pub(super) fn read(kind: SessionKind, uri: &Uri) -> Result<Wishes, HttpError> {
    let chat = match (from_query(uri, "chat"), kind) {
        (None, _) => None,
        (Some(_), SessionKind::Admin) => return Err(HttpError::bad_request("admins have no chats to select")),
        (Some(chat), SessionKind::User) => {
            let chat = ChatId::parse(&chat);
            Some(chat.map_err(|error| HttpError::bad_request("the chat in the query is none").with_details(error.to_string()))?)
        }
    };
    let moves = from_query(uri, "move").is_some_and(|moves| moves == "1");
    Ok(Wishes { chat, resume: from_query(uri, "resume").map(|text| Cursor::parse(&text)), moves })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<Wishes, HttpError> {
        read(SessionKind::User, &query.parse().unwrap())
    }

    #[test]
    fn a_chat_and_a_cursor_are_read_and_what_is_empty_counts_as_none() {
        let wishes = of("/ws/acme/a1?resume=2a%3A41&chat=c%201").map(|_| ());
        assert!(wishes.is_err(), "a chat id has no white space");
        let wishes = of("/ws/acme/a1?resume=2a%3A41&chat=c.1").unwrap();
        assert_eq!((wishes.chat.unwrap().as_str(), wishes.resume.unwrap().unwrap().to_string().as_str()), ("c.1", "2a:41"));
        let wishes = of("/ws/acme/a1?resume=&chat=").unwrap();
        assert!(wishes.chat.is_none() && wishes.resume.is_none());
        assert!(of("/ws/acme/a1?resume=x").unwrap().resume.unwrap().is_err());
    }

    #[test]
    fn a_client_that_can_move_says_so_with_a_one() {
        let moves = |query| of(query).unwrap().moves;
        assert_eq!(["/ws/a/b?move=1", "/ws/a/b?move=0", "/ws/a/b?move=", "/ws/a/b"].map(moves), [true, false, false, false]);
    }

    #[test]
    fn an_admin_may_resume_and_has_no_chat() {
        assert!(read(SessionKind::Admin, &Uri::from_static("/ws/admin?resume=2a:41")).unwrap().resume.is_some());
        assert!(read(SessionKind::Admin, &Uri::from_static("/ws/admin?chat=c1")).is_err());
    }
}
