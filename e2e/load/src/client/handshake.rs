//! The requests that sockets are opened with, tokens included.

use std::time::Duration;

use anyhow::{Context as _, Result};
use daisi_ws_domain::{
    claims::UserClaims,
    ids::{AgentId, CompanyId, UserId},
};
use daisi_ws_service::{application::auth::token::TokenKey, config::Secret, runtime::clock};

use super::{
    cursor::Cursor,
    protocol::{Desks, Opening},
};

/// The company of all sockets and events.
pub(crate) const COMPANY: &str = "load";
/// Life of a token: longer than any run.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Any sixteen bytes do; a server that checks more than that is not what is measured.
const KEY: &str = "ZGFpc2ktd3MtbG9hZC1rZQ==";

/// Makes the requests of an [`Opening`].
#[derive(Debug)]
pub(super) struct Handshakes {
    token_key: TokenKey,
    api_key: String,
    host: String,
    desks: Desks,
}

impl Handshakes {
    pub(super) fn new(opening: &Opening) -> Result<Self> {
        Ok(Self {
            token_key: TokenKey::parse(&Secret::new(opening.token_key.clone())).context("the token key")?,
            api_key: opening.api_key.clone(),
            host: opening.target.to_string(),
            desks: opening.desks,
        })
    }

    /// The request of the socket with this index, as a browser behind a load balancer sends it; to go on from `cursor`, if there is
    /// one.
    pub(super) fn request(&self, index: u32, cursor: Option<&Cursor>) -> Result<Vec<u8>> {
        let agent = self.desks.agent(index);
        let claims = UserClaims {
            company: CompanyId::parse(COMPANY)?,
            agent: AgentId::parse(&agent)?,
            user: UserId::parse(&format!("user-{index}@load.example"))?,
            expires_at: clock::now() + TOKEN_LIFE,
        };
        let token = self.token_key.seal(&claims.write()?)?;
        let resume = cursor.map(|cursor| format!("&resume={}", cursor.query())).unwrap_or_default();
        let Self { api_key, host, .. } = self;
        Ok(format!(
            "GET /ws/{COMPANY}/{agent}?token={token}{resume} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: json.v1\r\nX-API-Key: {api_key}\r\n\
             User-Agent: daisi-ws-load\r\n\r\n"
        )
        .into_bytes())
    }
}
