//! Secrets that do not show themselves, and where the configuration has them.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::Config;

/// What stands in for a secret wherever something is shown.
pub(super) const REDACTED: &str = "<redacted>";

/// The longest secret file that is read, in bytes: a wrong path (a log, a device) shall not fill the memory.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A text that no log, metric, error or page may show, and that is wiped from memory when it goes. One that came from a file
/// remembers it, for anyone who needs the text as it is [now](Self::now).
#[derive(Clone, Default, Deserialize)]
#[serde(from = "String")]
pub struct Secret {
    text: Zeroizing<String>,
    file: Option<Arc<Path>>,
}

/// A secret's file could not be read, or is none. Names the file and shows nothing of what is in it.
#[derive(Debug, thiserror::Error)]
#[error("can't read the secret in {}", path.display())]
pub struct SecretFileError {
    path: PathBuf,
    source: io::Error,
}

impl Secret {
    /// Wraps a text, so that it is neither printed nor kept in memory when it is dropped.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: Zeroizing::new(text.into()), file: None }
    }

    /// Wraps what a file holds.
    ///
    /// # Errors
    /// When the file can't be read, is too long or no text. Blocks on a small file.
    pub fn of_file(path: &Path) -> Result<Self, SecretFileError> {
        match read(path) {
            Ok(text) => Ok(Self { text, file: Some(path.into()) }),
            Err(source) => Err(SecretFileError { path: path.to_owned(), source }),
        }
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The secret as it is now: its file is read again, as it may have been renewed since; without a file it is the same.
    ///
    /// # Errors
    /// When the file can't be read or is empty, as one that is being written is.
    pub async fn now(&self) -> Result<Self, SecretFileError> {
        let Some(path) = &self.file else { return Ok(self.clone()) };
        let renewed = {
            let path = Arc::clone(path);
            tokio::task::spawn_blocking(move || Self::of_file(&path)).await
        };
        let unread = |source| SecretFileError { path: path.to_path_buf(), source };
        match renewed.map_err(|error| unread(io::Error::other(error)))? {
            Ok(secret) if secret.is_empty() => Err(unread(io::Error::new(io::ErrorKind::InvalidData, "it is empty"))),
            renewed => renewed,
        }
    }

    /// Remembers from which file the text came.
    pub(super) fn remember_file(&mut self, path: &Path) {
        self.file = Some(path.into());
    }

    /// Did it come from a file of its own?
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The file it came from, if users other than the owner and the group may read or write that. Links are followed: what counts
    /// is the file that holds it.
    pub(super) fn exposed_file(&self) -> Option<&Path> {
        self.file.as_deref().filter(|path| is_open_to_all(path))
    }

    /// Is there no secret, as where the key is not set?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.text.is_empty() { "" } else { REDACTED }
    }
}

/// May users read or write it that are neither the owner nor of the group? No, if nobody can tell.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    const READ_OR_WRITE: u32 = 0o006;
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & READ_OR_WRITE != 0)
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    use io::Read as _;

    // Its full size at once: a text that grows leaves what it was behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_FILE_BYTES + 1).unwrap_or_default()));
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

/// By the text: where it came from makes no other secret of it.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Secret {}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "\"\"" } else { REDACTED })
    }
}

/// Writes what may be shown, never the text: a serialised configuration is for reading, not for loading.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl Config {
    /// Every secret, by its key.
    #[must_use]
    pub fn secrets(&self) -> [(&'static str, &Secret); 7] {
        [
            ("nats.password", &self.nats.password),
            ("nats.token", &self.nats.token),
            ("redis.password", &self.redis.password),
            ("auth.secret_token", &self.auth.secret_token),
            ("auth.token_aes_key", &self.auth.token_aes_key),
            ("auth.admin_token_aes_key", &self.auth.admin_token_aes_key),
            ("auth.token_generation_admin_key", &self.auth.token_generation_admin_key),
        ]
    }

    /// The secret of this key.
    pub(super) fn secret_mut(&mut self, key: &str) -> Option<&mut Secret> {
        Some(match key {
            "nats.password" => &mut self.nats.password,
            "nats.token" => &mut self.nats.token,
            "redis.password" => &mut self.redis.password,
            "auth.secret_token" => &mut self.auth.secret_token,
            "auth.token_aes_key" => &mut self.auth.token_aes_key,
            "auth.admin_token_aes_key" => &mut self.auth.admin_token_aes_key,
            "auth.token_generation_admin_key" => &mut self.auth.token_generation_admin_key,
            _ => return None,
        })
    }

    /// Makes the keys of section `auth` that are missing, at random: for `dev`, whose fleet nobody else has to talk to.
    pub(crate) fn make_missing_secrets(&mut self) {
        let auth = &mut self.auth;
        for secret in
            [&mut auth.secret_token, &mut auth.token_aes_key, &mut auth.admin_token_aes_key, &mut auth.token_generation_admin_key]
        {
            if secret.is_empty() {
                *secret = Secret::new(hex::encode(rand::random::<[u8; 32]>()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_only_whether_it_is_there() {
        let (set, unset) = (Secret::new("hunter2"), Secret::default());
        assert_eq!((format!("{set:?}"), format!("{unset:?}")), ("<redacted>".to_owned(), "\"\"".to_owned()));
        assert_eq!(serde_json::to_string(&set).unwrap(), "\"<redacted>\"");
        assert_eq!(serde_json::to_string(&unset).unwrap(), "\"\"");
    }

    #[test]
    fn every_secret_can_be_told_its_file() {
        let mut config = crate::config::testing::config();
        let keys = config.secrets().map(|(key, _)| key);
        for key in keys {
            config.secret_mut(key).unwrap().remember_file(Path::new(key));
        }
        assert!(config.secrets().iter().all(|(key, secret)| secret.file.as_deref() == Some(Path::new(key))));
    }

    #[test]
    fn a_file_that_everybody_may_read_is_found_through_links() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};

        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("data"), folder.path().join("password"));
        std::fs::write(&path, "hunter2").unwrap();
        // As Kubernetes mounts a Secret.
        symlink(&path, &link).unwrap();
        let secret = Secret::of_file(&link).unwrap();
        for (mode, exposed) in [(0o644, true), (0o604, true), (0o602, true), (0o640, false), (0o440, false), (0o600, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret.exposed_file().is_some(), exposed, "{mode:o}");
        }
        assert_eq!(Secret::new("direct").exposed_file(), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret.exposed_file(), None);
    }

    #[tokio::test]
    async fn a_secret_is_what_its_file_holds_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "first\n").unwrap();
        let secret = Secret::of_file(&path).unwrap();
        std::fs::write(&path, "second\r\n").unwrap();
        assert_eq!((secret.expose(), secret.now().await.unwrap().expose()), ("first", "second"));
        assert_eq!(Secret::new("fixed").now().await.unwrap().expose(), "fixed");
    }

    #[tokio::test]
    async fn a_file_that_holds_no_secret_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "first").unwrap();
        let secret = Secret::of_file(&path).unwrap();
        for bad in [b"hunter2".repeat(10_000), b"hunter2\xff".to_vec(), Vec::new(), b"\n".to_vec()] {
            std::fs::write(&path, bad).unwrap();
            let error = secret.now().await.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(path.to_str().unwrap()) && !shown.contains("hunter2"), "{shown}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(secret.now().await.unwrap_err().to_string().contains("password"));
    }
}
