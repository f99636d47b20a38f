//! From defaults, file and environment to a checked configuration.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind as Cause,
    providers::{Format as _, Serialized},
    value::{Dict, Map, Value},
};

use super::{
    Config, Yaml, environment,
    keys::{self, Kind, PREFIX},
    problem::{ConfigError, Problem},
    validate,
};

/// The file that is read when none is named, if it is there.
const DEFAULT_FILE: &str = "config/config.yaml";
/// The variable that names the file; the only one of the gateway's that is no key.
const FILE_VARIABLE: &str = "DAISI_WS_CONFIG";

/// Which secrets of section `auth` a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// All of them, and good ones.
    Required,
    /// Missing ones are made at random; the others have to be good.
    Made,
    /// Those of these keys; the others are not looked at.
    Only(&'static [&'static str]),
}

/// Where a configuration comes from: a file, if any, and the environment as it was.
#[derive(Clone)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: BTreeMap<String, OsString>,
}

/// Shows the file and the names of variables: their values may be secrets.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = self.environment.keys().collect();
        f.debug_struct("Sources").field("file", &self.file).field("variables", &variables).finish()
    }
}

impl Sources {
    /// Decides on the file: `named` (`--config`), else the environment's `DAISI_WS_CONFIG`, else `config/config.yaml` if it
    /// exists.
    ///
    /// `environment` is all of it; what does not start with `DAISI_WS_` is dropped.
    #[must_use]
    pub fn new(named: Option<PathBuf>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self::with_default_file(named, environment, Path::new(DEFAULT_FILE))
    }

    fn with_default_file(
        named: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        default: &Path,
    ) -> Self {
        let environment: BTreeMap<String, OsString> = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        let file = named
            .or_else(|| environment.get(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from))
            .or_else(|| default.exists().then(|| default.to_owned()));
        Self { file, environment }
    }

    /// The file that is read, if any.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Does the environment set the key itself?
    pub(super) fn has_variable(&self, key: &str) -> bool {
        self.environment.contains_key(&keys::variable(key))
    }

    /// Variables that nobody reads, and those that may have been meant.
    pub(super) fn misspelt(&self) -> Vec<environment::Misspelt> {
        let tree = keys::defaults().unwrap_or_default();
        let secrets = default_config(&tree).map(|config| config.secrets().map(|(key, _)| keys::variable(key) + "_FILE"));
        let variables = keys::leaves(&tree).into_keys().map(|key| keys::variable(&key));
        let known: Vec<String> = variables.chain(secrets.into_iter().flatten()).chain([FILE_VARIABLE.to_owned()]).collect();
        environment::misspelt(&self.environment, &known)
    }

    /// Reads everything anew and checks it. Blocks on small files.
    ///
    /// # Errors
    /// With all that is wrong, each thing by its key; no secret is in it.
    pub fn load(&self, secrets: Secrets) -> Result<Config, ConfigError> {
        let tree = keys::defaults()?;
        let mut problems = Vec::new();
        let mut figment = Figment::from(Layer { metadata: Metadata::named("the defaults"), tree: tree.clone() });
        let secret_keys = default_config(&tree)?.secrets().map(|(key, _)| key);

        if let Some(path) = &self.file {
            let origin = format!("file {}", path.display());
            let found = read_file(path, &origin, &tree, &mut problems);
            figment = figment.merge(Layer { metadata: Metadata::named(origin), tree: found });
        }
        let settings = environment::read(&self.environment, &keys::leaves(&tree), &secret_keys, &mut problems);
        for setting in &settings {
            figment = figment.merge(setting);
        }

        let mut config = extract(figment.clone(), &tree, &mut problems)?;
        for (key, file) in settings.iter().filter_map(environment::Setting::secret_file) {
            if let Some(secret) = config.secret_mut(key) {
                secret.remember_file(file);
            }
        }
        if secrets == Secrets::Made {
            config.make_missing_secrets();
        }
        for (key, reason) in validate::validate(&config, secrets) {
            // What could not be read stands at its default by now, which says nothing about what was meant.
            if !problems.iter().any(|problem| problem.key == key) {
                let origin = set_by(&figment, &key);
                problems.push(Problem::new(key, reason, origin.as_deref()));
            }
        }
        if problems.is_empty() {
            return Ok(config);
        }
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        Err(ConfigError { problems })
    }
}

fn default_config(tree: &Dict) -> Result<Config, ConfigError> {
    let layer = Layer { metadata: Metadata::named("the defaults"), tree: tree.clone() };
    Figment::from(layer).extract().map_err(|error| keys::broken_defaults(&error))
}

fn set_by(figment: &Figment, key: &str) -> Option<String> {
    let name = &figment.find_metadata(key)?.name;
    (name != "the defaults").then(|| name.to_string())
}

/// A tree with a name.
struct Layer {
    metadata: Metadata,
    tree: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.tree.clone())]))
    }
}

// ---- the file
// --------------------------------------------------------------------------------------------------------------------

fn read_file(path: &Path, origin: &str, defaults: &Dict, problems: &mut Vec<Problem>) -> Dict {
    let file = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(Problem::new(file, format!("can't be read: {error}"), None));
            return Dict::new();
        }
    };
    if text.lines().map(str::trim).all(|line| line.is_empty() || line == "---" || line.starts_with('#')) {
        return Dict::new();
    }
    match Yaml::from_str::<Value>(&text) {
        Ok(Value::Dict(_, found)) => known(found, defaults, "", origin, problems),
        Ok(_) => {
            problems.push(Problem::new(file, "must be a map of sections", None));
            Dict::new()
        }
        Err(error) => {
            problems.push(Problem::new(file, format!("is no valid YAML: {error}"), None));
            Dict::new()
        }
    }
}

/// What of the tree has a known key and the right kind; the rest becomes problems.
fn known(found: Dict, defaults: &Dict, above: &str, origin: &str, problems: &mut Vec<Problem>) -> Dict {
    let mut good = Dict::new();
    for (name, value) in found {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let Some(default) = defaults.get(&name) else {
            let what = if above.is_empty() { "is no section" } else { "is no key" };
            problems.push(Problem::new(key, what, Some(origin)));
            continue;
        };
        match (default, Kind::of(default), value) {
            (Value::Dict(_, defaults), _, Value::Dict(tag, below)) => {
                good.insert(name, Value::Dict(tag, known(below, defaults, &key, origin, problems)));
            }
            // A section whose every key is commented out.
            (Value::Dict(..), _, Value::Empty(..)) => {}
            (_, Some(kind), value) if kind.takes(&value) => {
                good.insert(name, value);
            }
            (_, kind, _) => {
                problems.push(Problem::new(key, kind.map_or("is a section", Kind::wanted), Some(origin)));
            }
        }
    }
    good
}

// ---- from tree to structs
// --------------------------------------------------------------------------------------------------------

/// Makes the structs. Serde stops at the first value it can't take, so that one is put back to its default and the rest tried
/// again.
fn extract(mut figment: Figment, defaults: &Dict, problems: &mut Vec<Problem>) -> Result<Config, ConfigError> {
    let mut leaves = keys::leaves(defaults);
    loop {
        let error = match figment.extract::<Config>() {
            Ok(config) => return Ok(config),
            Err(error) => error,
        };
        let key = error.path.join(".");
        // Each key is put back once: the loop ends.
        let Some(default) = leaves.remove(&key) else { return Err(keys::broken_defaults(&reason(&error.kind))) };
        let origin = set_by(&figment, &key);
        problems.push(Problem::new(key.clone(), reason(&error.kind), origin.as_deref()));
        figment = figment.merge(Serialized::global(&key, default));
    }
}

fn reason(cause: &Cause) -> String {
    match cause {
        Cause::UnknownVariant(_, allowed) => format!("must be one of {}", allowed.join(", ")),
        Cause::InvalidValue(_, wanted) => format!("is out of range: it must fit in {wanted}"),
        Cause::Message(message) => format!("can't be read: {message}"),
        other => format!("can't be read: {other}"),
    }
}

#[cfg(test)]
mod tests;
