//! Core dumps and debuggers: both give away every key, token and message that the process holds.

/// Lets the kernel write core dumps of this process, also through a pipe, and its user attach to it and read its memory; or
/// neither. Root may always attach. A kernel that refuses is no reason not to serve.
pub(super) fn set(allowed: bool) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};

        let behavior = if allowed { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
        let _ = set_dumpable_behavior(behavior);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = allowed;
}
