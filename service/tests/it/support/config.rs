//! Settings for tests: the shipped defaults with keys of our own.

use daisi_ws_service::config::{Config, Secret, Yaml};
use figment::{Figment, providers::Format as _};

/// The shipped defaults, with test keys.
pub(crate) fn test_config() -> Config {
    let defaults = Yaml::string(include_str!("../../../config/default.yaml"));
    let mut config: Config = Figment::from(defaults).extract().expect("the shipped defaults are a configuration");
    config.auth.secret_token = Secret::new("browser-key-0123456789");
    config.auth.token_generation_admin_key = Secret::new("minting-key-0123456789");
    config.auth.token_aes_key = Secret::new("0f".repeat(32));
    config.auth.admin_token_aes_key = Secret::new("f0".repeat(32));
    config
}
