//! Reading the log again.

use async_trait::async_trait;

use super::{Down, StreamHandle};
use crate::ports::{ReadRequest, Replay, ReplayError, SpanRequest, StreamBounds, Stretch};

/// Does a subject pass a filter, in which `*` stands for one token?
fn passes(filter: &str, subject: &str) -> bool {
    let (mut wanted, mut tokens) = (filter.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), tokens.next()) {
            (None, None) => return true,
            (Some(wanted), Some(token)) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
}

#[async_trait]
impl Replay for StreamHandle {
    async fn bounds(&self) -> Result<StreamBounds, ReplayError> {
        let log = self.stream.lock();
        log.reaches(&self.pod).then(|| log.bounds()).ok_or_else(|| ReplayError::unreachable(Down))
    }

    async fn read(&self, request: &ReadRequest) -> Result<Stretch, ReplayError> {
        let log = self.stream.lock();
        if !log.reaches(&self.pod) {
            return Err(ReplayError::unreachable(Down));
        }
        // The log has subjects as they were published, whatever they begin with.
        let filter = request.route.filter("*");
        let ReadRequest { after, upto, max_events, max_bytes, .. } = *request;
        Ok(log.read(SpanRequest { after, upto, max_events, max_bytes }, |subject| passes(&filter, subject)))
    }

    async fn read_all(&self, request: &SpanRequest) -> Result<Stretch, ReplayError> {
        let log = self.stream.lock();
        if !log.reaches(&self.pod) {
            return Err(ReplayError::unreachable(Down));
        }
        Ok(log.read(*request, |_| true))
    }
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn a_star_stands_for_one_token_and_all_else_for_itself() {
        assert!(passes("*.acme.a1.chats", "wa.acme.a1.chats") && passes("*.*.*.agents", "wa.acme.a1.agents"));
        for other in ["wa.acme.a1.chats.x", "wa.acme.a2.chats", "acme.a1.chats", "wa.acme.a1"] {
            assert!(!passes("*.acme.a1.chats", other), "{other}");
        }
    }
}
