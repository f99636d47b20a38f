//! Configuration: one struct a section, loaded, validated and reloaded as a whole.
//!
//! [`Sources`] says where it comes from and [`Sources::load`] gives a [`Config`], whose every value is checked, or a
//! [`ConfigError`] with all
//! that is wrong. [`ConfigWatch`] holds the one in force and swaps it whole. Nothing here reads the process's environment: it is
//! passed in.

mod container;
mod effective;
mod environment;
mod file_watch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod load;
mod problem;
mod redact;
mod reload;
mod secret;
mod sections;
#[cfg(test)]
pub(crate) mod testing;
mod units;
mod validate;
mod warnings;
mod yaml;

pub(crate) use container::MemoryBudget;
pub use effective::{advertise_address, pod_id};
pub(crate) use effective::{grpc_bind_ip, host_address, host_name, probe_bind_ip};
pub use keys::is_reloadable;
pub use load::{Secrets, Sources};
pub(crate) use problem::{ConfigError, Problem};
pub(crate) use redact::dump;
pub use reload::ConfigWatch;
pub use secret::Secret;
pub(crate) use secret::SecretFileError;
pub use sections::*;
pub use yaml::Yaml;
