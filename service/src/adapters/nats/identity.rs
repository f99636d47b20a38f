//! As whom a pod connects, found out anew at each connect: credentials and passwords are renewed while it runs.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_nats::Auth;
use nkeys::KeyPair;

use crate::config::{Nats, Secret, SecretFileError};

/// User and password of an address; a user alone is a token, as everywhere with NATS.
#[derive(PartialEq)]
pub(super) struct Userinfo {
    pub(super) user: String,
    pub(super) password: Option<String>,
}

/// How the pod says who it is.
#[derive(Clone)]
pub(super) enum Identity {
    /// Not at all.
    Nobody,
    /// With what this file holds: a JWT, and the key by which it is proved.
    Credentials(PathBuf),
    /// With a token.
    Token(Secret),
    /// With user and password.
    User(String, Secret),
}

/// Who the pod is could not be found out. Shows nothing of what a file holds.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("nats.credentials_file {path:?}: {source}")]
    Credentials { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Secret(#[from] SecretFileError),
}

impl Identity {
    /// What the section says, which wins over the address.
    pub(super) fn of(nats: &Nats, in_address: Option<Userinfo>) -> Self {
        if let Some(path) = &nats.credentials_file {
            return Self::Credentials(path.clone());
        }
        if !nats.token.is_empty() {
            return Self::Token(nats.token.clone());
        }
        if !nats.user.is_empty() {
            return Self::User(nats.user.clone(), nats.password.clone());
        }
        match in_address {
            Some(Userinfo { user, password: Some(password) }) => Self::User(user, Secret::new(password)),
            Some(Userinfo { user, password: None }) => Self::Token(Secret::new(user)),
            None => Self::Nobody,
        }
    }

    /// What to tell a server that asks with this nonce.
    pub(super) async fn auth(&self, nonce: &[u8]) -> Result<Auth, IdentityError> {
        let mut auth = Auth::new();
        match self {
            Self::Nobody => {}
            Self::Token(token) => auth.token = Some(token.now().await?.expose().to_owned()),
            Self::User(user, password) => {
                auth.username = Some(user.clone());
                auth.password = Some(password.now().await?.expose().to_owned());
            }
            Self::Credentials(path) => {
                let failed = |source| IdentityError::Credentials { path: path.clone(), source };
                let (jwt, key) = read(path).await.map_err(failed)?;
                let signature = key.sign(nonce).map_err(|_| failed(io::Error::other("its key can't sign")))?;
                (auth.jwt, auth.signature) = (Some(jwt), Some(signature));
            }
        }
        Ok(auth)
    }
}

/// The JWT and the key of a credentials file.
async fn read(path: &Path) -> io::Result<(String, KeyPair)> {
    let text = tokio::fs::read_to_string(path).await?;
    let missing = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("it has no {what}"));
    let jwt = block(&text, "JWT").ok_or_else(|| missing("user JWT"))?;
    let seed = block(&text, "NKEY SEED").ok_or_else(|| missing("nkey seed"))?;
    // The key's own error may show it.
    let key = KeyPair::from_seed(seed).map_err(|_| missing("nkey seed that is one"))?;
    Ok((jwt.to_owned(), key))
}

/// The line after `-----BEGIN … {name}-----`.
pub(super) fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.trim_end_matches('-').ends_with(name))?;
    lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with("---"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(jwt: &str, key: &KeyPair) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            key.seed().unwrap()
        )
    }

    #[tokio::test]
    async fn renewed_credentials_are_used_at_the_next_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod.creds");
        let identity = Identity::Credentials(path.clone());
        for jwt in ["first.jwt", "second.jwt"] {
            let key = KeyPair::new_user();
            std::fs::write(&path, credentials(jwt, &key)).unwrap();
            let auth = identity.auth(b"nonce").await.unwrap();
            assert_eq!(auth.jwt.as_deref(), Some(jwt));
            key.verify(b"nonce", &auth.signature.unwrap()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_renewed_password_is_used_at_the_next_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "before").unwrap();
        let identity = Identity::User("pod".to_owned(), Secret::of_file(&path).unwrap());
        std::fs::write(&path, "after\n").unwrap();
        assert_eq!(identity.auth(b"").await.unwrap().password.as_deref(), Some("after"));
    }

    #[tokio::test]
    async fn an_error_shows_nothing_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod.creds");
        let seed = "SUAIO3FHUX5PNV2LQIIP7TZ3N4L7TX3W53MQGEIVYFIGA635OZCKEYHFLX";
        for text in [
            format!("-----BEGIN NATS USER JWT-----\nsecret\n---\n-----BEGIN USER NKEY SEED-----\n{seed}\n"),
            "-----BEGIN NATS USER JWT-----\n------END NATS USER JWT------\n".to_owned(),
            "secret".to_owned(),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Identity::Credentials(path.clone()).auth(b"").await.err().unwrap();
            let text = format!("{error} {error:?}");
            assert!(text.contains("pod.creds") && !text.contains(seed) && !text.contains("secret"), "{text}");
        }
    }
}
