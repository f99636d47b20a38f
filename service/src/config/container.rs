//! How much memory there is: what the container may have, else what the machine has.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where nothing says how much there is.
const UNKNOWN: usize = 1 << 30;
/// The part of it that is for events on their way and for what clients are sending. The other half is for all else: the sockets
/// themselves, what the system keeps for each of them, the program, and what allocators keep of what was given back.
const SHARE: usize = 2;
/// What stands for no limit in the first version of control groups: the largest number of pages.
const NO_LIMIT: usize = 1 << 60;

/// What `app.memory_budget_bytes` stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryBudget {
    /// When it is 0.
    default: usize,
}

impl MemoryBudget {
    /// By default half of what this process's container may have: the smallest limit of its control groups, of either version;
    /// without one, of what the machine has. Read once.
    #[must_use]
    pub(crate) fn of_the_container() -> Self {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Self {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let limit = groups.lines().flat_map(|line| limits_of(root, line)).min();
        let machine = || {
            let info = fs::read_to_string(root.join("proc/meminfo")).ok()?;
            let kibibytes = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
            kibibytes.trim().parse::<usize>().ok()?.checked_mul(1024)
        };
        let all = limit.into_iter().chain(machine()).min();
        Self { default: all.unwrap_or(UNKNOWN) / SHARE }
    }

    /// The budget in bytes, as it is configured.
    #[must_use]
    pub(crate) fn bytes(self, configured: usize) -> usize {
        if configured == 0 { self.default } else { configured }
    }
}

/// The limits of a control group and of those that it is in. In a container, its own group may be at the root, whatever it is
/// called outside.
fn limits_of(root: &Path, line: &str) -> Vec<usize> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|controller| controller == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let group: PathBuf = Path::new(group).components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
    let limit = |below: &Path| fs::read_to_string(root.join(mount).join(below).join(file)).ok()?.trim().parse().ok();
    group.ancestors().filter_map(limit).filter(|bytes| *bytes < NO_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default budget, in MiB, of a system with these files.
    fn default_of(files: &[(&str, &str)]) -> usize {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let budget = MemoryBudget::below(root.path());
        assert_eq!(budget.bytes(7), 7, "what is configured counts");
        budget.bytes(0) >> 20
    }

    #[test]
    fn it_is_half_of_the_smallest_limit_that_the_container_has() {
        let machine = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n");
        let second = ("proc/self/cgroup", "0::/pods/ws\n");
        let (own, outer) = ("sys/fs/cgroup/pods/ws/memory.max", "sys/fs/cgroup/pods/memory.max");
        assert_eq!(default_of(&[machine, second, (own, "805306368\n")]), 384);
        assert_eq!(default_of(&[machine, second, (own, "max\n"), (outer, "1073741824\n")]), 512);
        assert_eq!(default_of(&[machine, second, (own, "2147483648\n"), (outer, "1073741824\n")]), 512);
        // A container that sees itself at the root.
        assert_eq!(default_of(&[machine, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "805306368")]), 384);
    }

    #[test]
    fn the_first_version_of_control_groups_is_known_as_well() {
        let machine = ("proc/meminfo", "MemTotal:       16777216 kB\n");
        let group = ("proc/self/cgroup", "12:cpu,cpuacct:/x\n5:memory:/docker/abc\n");
        let file = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(default_of(&[machine, group, (file, "805306368\n")]), 384);
        assert_eq!(default_of(&[machine, group, (file, "9223372036854771712\n")]), 8192);
    }

    #[test]
    fn without_a_limit_it_is_half_of_the_machine_and_without_that_of_a_gibibyte() {
        assert_eq!(default_of(&[("proc/meminfo", "MemTotal:        2097152 kB\n")]), 1024);
        assert_eq!(default_of(&[("proc/self/cgroup", "0::/../..\n")]), 512);
    }
}
