//! What a fleet is made of, as the command line says it.

/// What `dev` is to start: how many pods, on which ports, on what backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Pods.
    pub pods: u16,
    /// A real NATS, in place of the one in memory.
    pub nats: Option<String>,
    /// A real Redis (`host:port`), in place of the one in memory.
    pub redis: Option<String>,
    /// HTTP port of the first pod; the next pods have the next ports. With 0, each has a free one.
    pub base_port: u16,
}

/// A ready-made token.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// Path of the socket that it opens.
    pub path: String,
    /// Whose.
    pub name: &'static str,
    /// The token.
    pub token: String,
}
