//! Tasks of a run.

/// Runs a task of the simulation itself: all of them end with the runtime of their run.
#[expect(clippy::disallowed_methods, reason = "a run owns all its tasks, and ends with its runtime")]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
