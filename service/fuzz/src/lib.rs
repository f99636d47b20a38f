//! Fuzz targets for every parser of what comes from outside, as plain functions: libFuzzer runs them (`fuzz_targets/`), and tests
//! replay the corpora through them on any compiler. `docs/fuzzing.md` says how.
//!
//! A target asserts what has to hold of any input: what was read can be written and read again, nothing is longer than its
//! bound, and another implementation says the same where there is one. Memory is measured for all of them ([`Target::check`]).

mod input;
mod memory;
mod replay;
mod targets;
#[cfg(test)]
mod tests;

pub use memory::Bound;
pub use replay::replay;
pub use targets::*;

use memory::Meter;

/// One parser, or several that read the same, and what has to hold of it.
#[derive(Debug)]
pub struct Target {
    /// Its name: that of its program, and of its folder below `corpus`.
    pub name: &'static str,
    check: fn(&[u8]),
    /// Makes what is made once.
    prepare: fn(),
    bound: Bound,
    meter: Meter,
}

impl Target {
    const fn new(name: &'static str, bound: Bound, check: fn(&[u8])) -> Self {
        Self { name, check, prepare: || {}, bound, meter: Meter::new() }
    }

    #[cfg(feature = "gateway")]
    const fn preparing(self, prepare: fn()) -> Self {
        Self { prepare, ..self }
    }

    /// Reads one input. An input of more than [`LONGEST`] bytes is passed over.
    ///
    /// # Panics
    /// When something does not hold of it, it takes more memory than its bound, or memory is kept from input to input.
    pub fn check(&self, input: &[u8]) {
        if input.len() <= LONGEST {
            if self.meter.is_new() {
                (self.prepare)();
            }
            self.meter.measure(self.name, &self.bound, input.len(), || (self.check)(input));
        }
    }
}

/// The longest input that is looked at, in bytes.
pub const LONGEST: usize = 4096;

/// The program of a target: libFuzzer's where it is built for that (`--cfg fuzzing`), else one that replays the files that it is
/// given.
#[macro_export]
macro_rules! program {
    ($target:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::$target.check(input));

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::replay(&$crate::$target, std::env::args_os().skip(1))
        }
    };
}

/// What was to hold does not.
#[expect(clippy::panic, reason = "it is how a target says what it found")]
fn fail(what: &str) -> ! {
    panic!("{what}")
}

/// What an operation gives that can't fail.
fn must<T, E: std::fmt::Debug>(outcome: Result<T, E>, what: &str) -> T {
    outcome.unwrap_or_else(|error| fail(&format!("{what}: {error:?}")))
}
