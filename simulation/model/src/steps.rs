//! Steps by who makes them: what each part offers in a state, and what it does.

pub(crate) mod connect;
pub(crate) mod renew;
pub(crate) mod traffic;
pub(crate) mod world;
