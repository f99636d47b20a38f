//! What scenarios are made of: the conductor and its servers, sides that are measured in turns, and the figures of their turns.

pub(crate) mod audience;
pub(crate) mod commands;
pub(crate) mod conductor;
pub(crate) mod figures;
pub(crate) mod side;
pub(crate) mod turns;
