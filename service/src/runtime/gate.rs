//! Holds tasks where they are, as SIGSTOP holds those of a process: a fleet in one process can freeze one of its pods.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use super::watched::Watched;

/// Holds tasks where they are while somebody holds it shut. What they wait for goes on meanwhile, timers too, and is found when it
/// opens.
#[derive(Debug, Default)]
pub struct Gate {
    holds: Watched<u32>,
    waiting: Mutex<Vec<Waker>>,
}

impl Gate {
    /// Shuts it, until it is released as often.
    pub fn hold(&self) {
        self.holds.set(self.holds.get() + 1);
    }

    /// Takes one hold away.
    pub fn release(&self) {
        self.set(self.holds.get().saturating_sub(1));
    }

    /// Opens it, whoever holds it shut.
    pub fn open(&self) {
        self.set(0);
    }

    fn set(&self, holds: u32) {
        self.holds.set(holds);
        if holds == 0 {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    fn is_shut(&self) -> bool {
        self.holds.get() > 0
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        self.holds.wait_for(|holds| holds == 0).await;
    }

    /// The task, which stands still while the gate is shut.
    pub fn guard<F: Future>(self: &Arc<Self>, task: F) -> Guarded<F> {
        Guarded { task: Box::pin(task), gate: Arc::clone(self) }
    }
}

/// A task that may be held.
#[derive(Debug)]
pub struct Guarded<F> {
    task: Pin<Box<F>>,
    gate: Arc<Gate>,
}

impl<F: Future> Future for Guarded<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.gate.is_shut() {
            self.gate.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(cx.waker().clone());
            return Poll::Pending;
        }
        self.task.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_stands_still_while_its_gate_is_shut_and_goes_on_then() {
        let (gate, began) = (Arc::new(Gate::default()), Instant::now());
        gate.hold();
        let opener = async {
            sleep(Duration::from_secs(5)).await;
            gate.release();
        };
        let task = gate.guard(sleep(Duration::from_secs(1)));
        let (elapsed, ()) = tokio::join!(
            async {
                task.await;
                began.elapsed()
            },
            opener
        );
        assert_eq!(elapsed, Duration::from_secs(5), "its timer was overdue");
    }
}
