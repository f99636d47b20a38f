//! Whose session it is, as every line about it says.

/// Whose session it is, in words.
#[derive(Debug)]
pub(crate) struct Who<'a> {
    pub(crate) pod: &'a str,
    pub(crate) request: &'a str,
    pub(crate) kind: &'static str,
    pub(crate) company: &'a str,
    pub(crate) agent: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) admin: Option<&'a str>,
}

/// Logs a line about a session at `info`, with the fields that every such line has. No span around the session's task has them:
/// it would hold memory for as long as the socket lives, and be entered at every wake-up.
macro_rules! session_line {
    ($session:expr, $($rest:tt)+) => {{
        let who = $session.who();
        tracing::event!(
            name: crate::telemetry::SESSION_LINE, tracing::Level::INFO, pod.id = who.pod, request.id = who.request,
            session.kind = who.kind, company.id = who.company, agent.id = who.agent, user.id = who.user,
            admin.id = who.admin, $($rest)+
        );
    }};
}
pub(crate) use session_line;
