//! The protocol by which sockets get, keep and lose the lock of one session, as a model whose states are all checked.
//!
//! README.md says what is modelled and what is left out. The names are those of `service/src/application/admission`.

pub mod action;
pub mod model;
pub mod mutant;
pub mod properties;
pub mod report;
pub mod state;
mod steps;
