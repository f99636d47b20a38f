//! What clients that come back to their place in the stream cost: storm-resume and storm-resume-shared.

mod storm;
pub(super) mod trials;
