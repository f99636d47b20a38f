//! Panics as log lines.

use std::{backtrace::Backtrace, sync::Once};

/// What the standard library says when it is about to abort, after which nothing is written any more.
const LAST_WORDS: [&str; 2] = ["panic in a function that cannot unwind", "panic in a destructor during cleanup"];

/// Makes every panic one error line with its message, place and stack. The panic itself goes on as it would. Nothing blocks on
/// anyone who reads the lines, which the standard library's own hook would.
pub(crate) fn log_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(log_panic)));
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let stack = Backtrace::force_capture();
    if tracing::dispatcher::has_been_set() {
        tracing::error!(
            panic.message = message,
            panic.location = location,
            panic.stack = %stack,
            thread.name = std::thread::current().name().unwrap_or_default(),
            "a thread panicked"
        );
    } else {
        super::say(&format!("a thread panicked at {location}: {message}\n{stack}\n"));
    }
    if LAST_WORDS.contains(&message) {
        super::flush();
    }
}
