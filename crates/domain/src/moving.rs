//! Sessions that go from one socket to another while both are open.

crate::words! {
    /// Why a client is asked to open a second socket; the closed set behind the `reason` of a `move` frame.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum MoveReason {
        /// The pod is about to end.
        Drain = "drain",
        /// The pod has more sockets than others.
        Rebalance = "rebalance",
    }
}
