//! Configuration: one struct a section, loaded, validated and reloaded as a whole.
//!
//! [`Sources`] says where it comes from and [`Sources::load`] gives a [`Config`], whose every value is checked, or a [`ConfigError`] with all
//! that is wrong. [`ConfigWatch`] holds the one in force and swaps it whole. Nothing here reads the process's environment: it is
//! passed in.

mod container;
mod effective;
mod environment;
mod file_watch;
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

pub use container::MemoryBudget;
pub use effective::{advertise_address, grpc_bind_ip, host_address, host_name, pod_id, probe_bind_ip};
pub use keys::{RELOADABLE, is_reloadable};
pub use load::{Secrets, Sources};
pub use problem::{ConfigError, Problem};
pub use redact::{dump, without_userinfo};
pub use reload::{ConfigWatch, Reload};
pub use secret::{Secret, SecretFileError};
pub use sections::*;
pub use warnings::Warning;
pub use yaml::Yaml;
