//! A gap that may be none.

use daisi_ws_domain::{gap::Gap, missing::Missing};

/// A gap that can be read again from the stream before it is told.
#[derive(Debug, Clone)]
pub struct Hole {
    /// What is told if it can't.
    pub gap: Gap,
    /// What is missing.
    pub missing: Missing,
}
