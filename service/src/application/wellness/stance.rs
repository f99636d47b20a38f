//! What a pod does with events, by how well it is.

use std::time::Duration;

/// A look-up or a call that takes longer is slow. A network hop and a busy store take a tenth of it.
pub(crate) const SLOW: Duration = Duration::from_millis(100);

/// What a pod does with events that somebody elsewhere wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stance {
    /// It brings them there.
    #[default]
    Serves,
    /// It brings them to its own sockets, and gives them back for another pod.
    PassesOn,
    /// It asks for none, and gives back what it has.
    StepsBack,
}

impl Stance {
    /// Are events given back?
    #[must_use]
    pub(crate) fn gives_back(self) -> bool {
        self != Self::Serves
    }
}
