//! Commands that a Redis was sent, those within scripts too.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{figures::ratio, side::Side};

/// How a kill is published.
const PUBLISH: &str = "publish";

/// Calls by command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commands(BTreeMap<String, u64>);

impl Commands {
    /// What the side's Redis was sent so far; none at floors.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub(crate) async fn of(side: &Side) -> Result<Option<Self>> {
        match side.redis() {
            Some(redis) => Ok(Some(Self(redis.calls().await?))),
            None => Ok(None),
        }
    }

    /// What was added since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let added = |command: &str, calls: u64| calls - before.0.get(command).copied().unwrap_or_default().min(calls);
        Self(self.0.iter().map(|(command, calls)| (command.clone(), added(command, *calls))).collect())
    }

    /// All of them.
    pub(crate) fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// Messages that were published.
    pub(crate) fn published(&self) -> u64 {
        self.0.get(PUBLISH).copied().unwrap_or_default()
    }

    /// Those of each command for one of so many, most first, for a note.
    pub(crate) fn by(&self, count: f64) -> String {
        let mut calls: Vec<_> = self.0.iter().filter(|(_, calls)| **calls > 0).collect();
        calls.sort_by_key(|(_, calls)| std::cmp::Reverse(**calls));
        let calls: Vec<_> =
            calls.into_iter().map(|(command, calls)| format!("{command} {:.2}", ratio(*calls, 1) / count)).collect();
        calls.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(calls: &[(&str, u64)]) -> Commands {
        Commands(calls.iter().map(|(command, calls)| ((*command).to_owned(), *calls)).collect())
    }

    #[test]
    fn what_was_added_is_told_by_command_with_the_most_first() {
        let added =
            commands(&[("get", 9), ("publish", 7), ("info", 3), ("set", 30)]).since(&commands(&[("info", 3), ("get", 5)]));
        assert_eq!((added.all(), added.published()), (41, 7));
        assert_eq!(added.by(10.0), "set 3.00, publish 0.70, get 0.40");
    }
}
