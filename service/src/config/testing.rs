//! Ready configurations for tests.

use std::ffi::OsString;

use figment::{Figment, providers::Format as _};
use serde::de::DeserializeOwned;

use super::{Config, Secrets, Sources, Yaml};

/// Good secrets, as environment variables.
pub(crate) const SECRETS: &[(&str, &str)] = &[
    ("DAISI_WS_AUTH_SECRET_TOKEN", "browser-api-key-for-tests"),
    ("DAISI_WS_AUTH_TOKEN_AES_KEY", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
    ("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"),
    ("DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY", "minting-api-key-for-tests"),
];

/// An environment of these variables.
pub(crate) fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// The defaults with good secrets.
pub(crate) fn config() -> Config {
    let empty = tempfile::NamedTempFile::new().unwrap();
    Sources::new(Some(empty.path().to_owned()), environment(SECRETS)).load(Secrets::Required).unwrap()
}

/// Reads YAML without any check but the types'.
pub(crate) fn parse<T: DeserializeOwned>(yaml: &str) -> T {
    Figment::from(Yaml::string(yaml)).extract().unwrap()
}
