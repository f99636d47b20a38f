//! daisi-ws-service
pub mod adapters;
pub mod application;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dev;
pub mod domain;
pub mod gateway;
pub mod lifecycle;
pub mod metrics;
pub mod telemetry;
