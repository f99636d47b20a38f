//! Which pod this process is.

use daisi_ws_domain::ids::PodId;

use crate::config::{Config, ConfigError, Problem, host_name, pod_id};

/// This pod's name, or the key to set where the host's name will not do.
pub(super) fn own_pod_id(config: &Config) -> Result<PodId, ConfigError> {
    pod_id(&config.server, &host_name(), config.server.grpc_port).map_err(|error| ConfigError {
        problems: vec![Problem {
            key: "server.pod_id".to_owned(),
            reason: format!("must be set, for the host's name is no pod id: {error}"),
            origin: None,
        }],
    })
}
