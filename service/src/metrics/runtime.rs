//! What the runtimes of this process and its log say of themselves.

use std::{sync::PoisonError, time::Duration};

use tokio::runtime::{Handle, RuntimeMetrics};

use super::Metrics;
use crate::telemetry;

impl Metrics {
    /// Has what this runtime says of itself added to what is shown. Where none is named, it is the one that runs the caller.
    pub(crate) fn watch_runtime(&self, runtime: Handle) {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).push(runtime);
    }

    /// Reads what the runtime says of itself; nothing outside of one.
    pub(super) fn read_runtime(&self) {
        let mut runtimes: Vec<RuntimeMetrics> =
            self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Handle::metrics).collect();
        if runtimes.is_empty() {
            runtimes.extend(Handle::try_current().map(|current| current.metrics()));
        }
        let sum =
            |read: fn(&RuntimeMetrics) -> usize| i64::try_from(runtimes.iter().map(read).sum::<usize>()).unwrap_or(i64::MAX);
        self.tokio_workers.set(sum(RuntimeMetrics::num_workers));
        self.tokio_alive_tasks.set(sum(RuntimeMetrics::num_alive_tasks));
        self.tokio_global_queue_depth.set(sum(RuntimeMetrics::global_queue_depth));
        let busy_of = |runtime: &RuntimeMetrics| -> Duration {
            (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker)).sum()
        };
        let busy: Duration = runtimes.iter().map(busy_of).sum();
        // Two scrapes at once may both add a little; the next one finds it and adds nothing.
        self.tokio_busy_seconds_total.inc_by((busy.as_secs_f64() - self.tokio_busy_seconds_total.get()).max(0.0));
    }

    /// Reads how many log lines were not written. Like the process's memory, they are the same for all pods of one process.
    pub(super) fn read_log(&self) {
        let lost = telemetry::lost_lines();
        for (counter, now) in [
            (&self.log_lines_dropped_total, lost.dropped),
            (&self.log_audit_lines_dropped_total, lost.dropped_audit),
            (&self.log_lines_suppressed_total, lost.suppressed),
        ] {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
    }
}
