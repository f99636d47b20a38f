//! A pod's log, and somebody who reads it or not.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read as _},
    process::ChildStderr,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Last lines of a pod's log that are kept, to be shown when it fails.
const KEPT_LINES: usize = 40;

/// What a pod says, read by a thread that can be stopped, as a log collector can.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) lines: AtomicU64,
    last: Mutex<VecDeque<String>>,
    stopped: Mutex<bool>,
    resumed: Condvar,
}

impl Log {
    /// Reads to the end.
    pub(super) fn read(&self, from: ChildStderr) {
        let mut reader = BufReader::new(from);
        loop {
            {
                let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
                while *stopped {
                    stopped = self.resumed.wait(stopped).unwrap_or_else(PoisonError::into_inner);
                }
            }
            let mut line = String::new();
            // A line that never ends is no line of a log; it is read in pieces.
            match reader.by_ref().take(1 << 20).read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    self.lines.fetch_add(1, Ordering::Relaxed);
                    let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                    last.push_back(line);
                    if last.len() > KEPT_LINES {
                        last.pop_front();
                    }
                }
            }
        }
    }

    /// The last lines.
    pub(super) fn text(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().map(String::as_str).collect()
    }

    /// Stops reading, or goes on.
    pub(super) fn resume(&self, read: bool) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = !read;
        self.resumed.notify_all();
    }
}
