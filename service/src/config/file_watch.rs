//! Notices that a file may have changed, however it was replaced.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Watches as long as it lives.
#[derive(Debug)]
pub(super) struct FileWatch {
    _watcher: RecommendedWatcher,
}

impl FileWatch {
    /// Notifies `changed` after every change in the directories that have to do with the file; whether the file itself changed is
    /// for the reader to see.
    ///
    /// The directory is watched, not the file: editors and `mv` put a new file in its place, and Kubernetes swaps a symbolic link
    /// beside it (`..data`) and never touches the file's own entry. A file that is a link to elsewhere has its target's directory
    /// watched too.
    pub(super) fn start(file: &Path, changed: Arc<Notify>) -> Result<Self, notify::Error> {
        let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            // Reading the file is an event as well, and would go round for ever. An error may mean that events were lost.
            if event.map_or(true, |event| !matches!(event.kind, EventKind::Access(_))) {
                changed.notify_one();
            }
        })?;
        for directory in directories(file) {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher })
    }
}

fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let parent = |file: &Path| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        other => other.map(Path::to_owned),
    };
    let target = file.canonicalize().ok();
    let named = parent(file).map(|directory| directory.canonicalize().unwrap_or(directory));
    named.into_iter().chain(target.and_then(|target| parent(&target))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_file_has_both_directories_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("mount/..1")).unwrap();
        std::fs::write(root.join("mount/..1/config.yaml"), "").unwrap();
        std::os::unix::fs::symlink("..1", root.join("mount/..data")).unwrap();
        std::os::unix::fs::symlink("..data/config.yaml", root.join("mount/config.yaml")).unwrap();
        let found: Vec<_> = directories(&root.join("mount/config.yaml")).into_iter().collect();
        assert_eq!(found, [root.join("mount"), root.join("mount/..1")]);
    }

    #[test]
    fn a_bare_name_is_in_the_working_directory() {
        let found: Vec<_> = directories(Path::new("config.yaml")).into_iter().collect();
        assert_eq!(found, [std::env::current_dir().unwrap().canonicalize().unwrap()]);
    }
}
