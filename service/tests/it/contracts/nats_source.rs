//! What JetStream as an event source does beyond the contract of all sources.
