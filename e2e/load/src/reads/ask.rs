//! Requests, one after another or many at once, and what came back.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::{Client, Message};
use futures_util::StreamExt as _;
use rand::RngExt as _;
use tokio::time::{Instant, timeout};

use super::{
    fill,
    kinds::{Kind, Place},
};
use crate::{clock, samples::Samples};

/// A server that has not said anything for so long will not.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of the requests.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) latency: Samples,
    pub(super) answered: u64,
    pub(super) unanswered: u64,
    /// Until the last answer.
    pub(super) took: Duration,
    events: u64,
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "there are fewer events than a float has digits")]
    pub(super) fn events_a_read(&self) -> f64 {
        self.events as f64 / self.answered.max(1) as f64
    }
}

/// Reads for `count` subjects drawn at random of a stream with `events` on `subjects`, `window` reads at a time.
///
/// # Errors
/// When the connection ends.
pub(super) async fn ask(
    client: &Client,
    kind: &Kind,
    (events, subjects): (u64, u64),
    count: u64,
    window: u64,
) -> Result<Outcome> {
    let (inbox, api) = (client.new_inbox(), kind.api());
    let mut answers = client.subscribe(format!("{inbox}.*")).await?;
    let mut outcome = Outcome { latency: Samples::new()?, answered: 0, unanswered: 0, took: Duration::ZERO, events: 0 };
    let (mut begun_at, began) = (Vec::new(), Instant::now());
    while outcome.answered < count {
        while (begun_at.len() as u64) < count && begun_at.len() as u64 - outcome.answered < window {
            let request = kind.request(&drawn(events, subjects)).to_string();
            client.publish_with_reply(api.clone(), format!("{inbox}.{}", begun_at.len()), request.into()).await?;
            begun_at.push(clock::nanos());
        }
        let Ok(answer) = timeout(PATIENCE, answers.next()).await else { break };
        let answer = answer.context("the connection has ended")?;
        let of = answer.subject.rsplit('.').next().and_then(|number| number.parse::<usize>().ok());
        let begun = of.and_then(|number| begun_at.get(number)).context("an answer to nothing that was asked")?;
        outcome.events += u64::from(is_event(&answer));
        if is_last(kind, &answer) {
            outcome.answered += 1;
            outcome.latency.record(clock::nanos().saturating_sub(*begun));
            outcome.took = began.elapsed();
        }
    }
    outcome.unanswered = count - outcome.answered;
    Ok(outcome)
}

fn drawn(events: u64, subjects: u64) -> Place {
    let desk = rand::rng().random_range(0..subjects);
    // The last event with this remainder; sequences begin with 1.
    let last = events - 1 - (events - 1 - desk) % subjects + 1;
    Place { subject: fill::subject(desk, subjects), last, apart: subjects }
}

fn is_event(answer: &Message) -> bool {
    answer.status.is_none() && !answer.payload.windows(8).any(|text| text == b"\"error\":")
}

/// A batch ends with a status, be it that there was nothing; a server that knows no batches answers with one event.
fn is_last(kind: &Kind, answer: &Message) -> bool {
    let knows_batches = answer.headers.as_ref().is_some_and(|headers| headers.get("Nats-Num-Pending").is_some());
    !kind.is_batch() || answer.status.is_some() || !knows_batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_place_is_the_last_event_of_its_subject() {
        for (events, subjects) in [(10, 3), (9, 3), (100, 7), (5, 5)] {
            for _ in 0..50 {
                let place = drawn(events, subjects);
                assert_eq!(fill::subject(place.last - 1, subjects), place.subject);
                assert!(place.last <= events && place.last + subjects > events, "{place:?} of {events}");
            }
        }
    }
}
