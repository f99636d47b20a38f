//! Errors in log lines, with what lies below them.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

/// Levels of an error that are printed. Past that it says no more that anybody needs.
const MAX_LEVELS: usize = 8;

/// Displays an error with the whole chain of its sources, `what: why: why that`. A level that only repeats the end of the one
/// before is left out.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels = std::iter::successors(Some(self.0), |error| (*error).source()).take(MAX_LEVELS);
        let (mut said, mut level) = (String::new(), String::new());
        for error in levels {
            level.clear();
            write!(level, "{error}")?;
            if level.is_empty() || said.ends_with(&level) {
                continue;
            }
            if !said.is_empty() {
                said.push_str(": ");
            }
            said.push_str(&level);
        }
        f.write_str(&said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layered {
        #[error("top")]
        Top(#[source] Box<Layered>),
        #[error("middle: {0}")]
        Repeats(#[source] std::io::Error),
    }

    #[test]
    fn every_level_is_said_once() {
        let error = Layered::Top(Box::new(Layered::Repeats(std::io::Error::other("bottom"))));
        assert_eq!(Chain(&error).to_string(), "top: middle: bottom");
    }

    #[test]
    fn a_chain_has_an_end() {
        let mut error = Layered::Repeats(std::io::Error::other("bottom"));
        for _ in 0..100 {
            error = Layered::Top(Box::new(error));
        }
        assert_eq!(Chain(&error).to_string(), "top");
    }
}
