//! One question for all who ask it in one moment.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

/// Callers that come while a question is out gather for the next one, so nobody gets an answer to what was asked before it came;
/// there is one out at most. Whoever is dropped leaves the others an answer, or the question.
#[derive(Debug)]
pub(super) struct Gather<T> {
    /// What callers that come now will share.
    next: Mutex<Arc<Round<T>>>,
    /// Who has it asks.
    turn: tokio::sync::Mutex<()>,
}

/// Those who share an answer: they are told at once, not one after the other, or thousands would stand in line for it.
#[derive(Debug)]
struct Round<T> {
    answer: OnceLock<T>,
    answered: Notify,
}

impl<T> Default for Round<T> {
    fn default() -> Self {
        Self { answer: OnceLock::new(), answered: Notify::new() }
    }
}

impl<T: Clone> Round<T> {
    async fn answered(&self) -> T {
        loop {
            let mut answered = std::pin::pin!(self.answered.notified());
            answered.as_mut().enable();
            if let Some(answer) = self.answer.get() {
                return answer.clone();
            }
            answered.await;
        }
    }
}

impl<T> Default for Gather<T> {
    fn default() -> Self {
        Self { next: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<T: Clone> Gather<T> {
    fn next(&self) -> std::sync::MutexGuard<'_, Arc<Round<T>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a question that is asked now or later, by this caller or another.
    pub(super) async fn ask(&self, question: impl AsyncFnOnce() -> T) -> T {
        let shared = Arc::clone(&self.next());
        let _turn = tokio::select! {
            biased;
            answer = shared.answered() => return answer,
            turn = self.turn.lock() => turn,
        };
        if let Some(answer) = shared.answer.get() {
            return answer.clone();
        }
        {
            let mut next = self.next();
            // Not so if who had the turn for these callers was dropped before the answer came.
            if Arc::ptr_eq(&next, &shared) {
                *next = Arc::default();
            }
        }
        let answer = question().await;
        let _ = shared.answer.set(answer.clone());
        shared.answered.notify_waiters();
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering::Relaxed},
        time::Duration,
    };

    use super::*;

    const TAKES: Duration = Duration::from_secs(1);

    #[derive(Default)]
    struct Server {
        asked: AtomicU32,
        gather: Gather<u32>,
    }

    impl Server {
        async fn ask(&self) -> u32 {
            self.gather
                .ask(async || {
                    let number = self.asked.fetch_add(1, Relaxed) + 1;
                    tokio::time::sleep(TAKES).await;
                    number
                })
                .await
        }

        async fn ask_later(&self, part: u32) -> u32 {
            tokio::time::sleep(TAKES * part / 10).await;
            self.ask().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_a_question_is_out_shares_the_next_with_all_others() {
        let server = Server::default();
        let answers =
            tokio::join!(server.ask(), server.ask_later(1), server.ask_later(5), server.ask_later(9), server.ask_later(11));
        assert_eq!(answers, (1, 2, 2, 2, 3));
        assert_eq!(server.ask().await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_caller_leaves_the_question_to_the_others() {
        let server = Server::default();
        let (out, dropped, left, later) =
            tokio::join!(server.ask(), tokio::time::timeout(TAKES * 3 / 2, server.ask()), server.ask(), server.ask_later(12));
        assert!(dropped.is_err());
        // Two gathered while the first question was out, and who asked for both was dropped; the last came meanwhile.
        assert_eq!((out, left, later), (1, 3, 4));
    }
}
