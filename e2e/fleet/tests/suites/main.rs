//! The suites. They need Docker and the images: `.ci/e2e quick` and `.ci/e2e full` see to both, and run them one after another,
//! as each fleet wants the machine to itself.
#![expect(clippy::unwrap_used, reason = "a test that fails has to say where")]

mod admin;
mod compose;
mod connect;
mod drain;
mod faults;
mod fleet;
mod joining;
mod links;
mod measure;
mod migration;
mod reload;
mod routing;
mod slow;
mod stores;
