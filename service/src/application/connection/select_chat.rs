//! Selecting a chat: a session moves from the route of one chat to that of another.

use std::sync::Arc;

use daisi_ws_domain::{close::ErrorCode, frame::ErrorBody, ids::ChatId};

use crate::{
    application::{admission::socket_services::SocketServices, hub::session::Session},
    ports::log_store_error,
};

/// Moves a session from the chat it had to another, and waits until every pod can see that. If that fails, it has the old one
/// again.
pub(crate) async fn select(services: Arc<SocketServices>, session: Arc<Session>, chat: ChatId) -> Result<ChatId, ErrorBody> {
    let connection = session.connection();
    let old = session.chat();
    let (Some(route), old_route) = (session.chat_route(&chat), old.as_ref().and_then(|chat| session.chat_route(chat))) else {
        return Err(ErrorBody::new(ErrorCode::BadRequest, "admins have no chats to select"));
    };
    match services.chats.writer.join(&session, std::slice::from_ref(&route)).await {
        Ok(_) => {
            session.set_chat(Some(chat.clone()));
            if let Some(old_route) = old_route.filter(|old| *old != route) {
                services.hub.leave(connection, &old_route);
            }
            let ttl = services.config.borrow().app.selected_chat_ttl;
            // Only a convenience for the next connect, and renewal writes it again.
            if let Err(error) = services.chats.locks.save_chat(session.key(), &chat, ttl).await {
                log_store_error!(&error, "the selected chat could not be saved");
            }
            Ok(chat)
        }
        Err(error) => {
            log_store_error!(&error, connection.id = %connection, "a chat could not be selected");
            if old_route.as_ref() != Some(&route) {
                services.hub.leave(connection, &route);
            }
            Err(ErrorBody::new(ErrorCode::SubscriptionFailure, "the chat could not be selected; the one before still is")
                .with_details("the session store is unavailable; try again shortly"))
        }
    }
}
