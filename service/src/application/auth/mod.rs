//! Who may come in: tokens and API keys, opened and made.

pub mod authenticator;
pub mod mint;
pub mod token;
mod token_sharing;
