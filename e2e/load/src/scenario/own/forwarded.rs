//! The load of `spread`, with all sockets on one pod while the other takes the events: what the way from pod to pod adds.

use anyhow::Result;

use super::spread::{Spread, confirmed_at, millis_at};
use crate::{
    conduct::turns::Turns,
    report::{Figure, Size},
    stage::pod::Pod,
};

/// The pod that holds the sockets takes its events from another stream, in which there are none: so it pulls nothing of what the
/// other shall forward to it.
pub(super) const HOLDS_ONLY: [(&str, &str); 3] = [
    ("DAISI_WS_NATS_STREAM_NAME", "wa_nothing"),
    ("DAISI_WS_NATS_SUBJECT_PREFIX", "nothing"),
    ("DAISI_WS_NATS_STREAM_MAX_BYTES", "16777216"),
];

/// What the pod that has the sockets says of the ways that events came by: how many, and for how many seconds in all they were
/// under way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    forwarded: Way,
    local: Way,
}

#[derive(Debug, Clone, Copy, Default)]
struct Way {
    events: f64,
    seconds: f64,
}

impl Counted {
    /// Reads the pod's metrics.
    ///
    /// # Errors
    /// When the pod does not answer.
    pub(super) async fn by(pod: &Pod) -> Result<Self> {
        let way = async |path: &str| {
            let label = format!("path=\"{path}\"");
            let events = pod.metric("dws_event_delivery_seconds_count", &label).await?;
            Ok::<_, anyhow::Error>(Way { events, seconds: pod.metric("dws_event_delivery_seconds_sum", &label).await? })
        };
        Ok(Self { forwarded: way("forwarded").await?, local: way("local").await? })
    }

    /// What was added since.
    pub(super) fn since(self, before: Self) -> Self {
        Self { forwarded: self.forwarded.since(before.forwarded), local: self.local.since(before.local) }
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self { forwarded: self.forwarded.and(other.forwarded), local: self.local.and(other.local) }
    }

    /// Of all events, those that came by way of the other pod, in per cent.
    fn share(self) -> f64 {
        self.forwarded.events / (self.forwarded.events + self.local.events).max(1.0) * 100.0
    }
}

impl Way {
    fn since(self, before: Self) -> Self {
        Self { events: self.events - before.events, seconds: self.seconds - before.seconds }
    }

    fn and(self, other: Self) -> Self {
        Self { events: self.events + other.events, seconds: self.seconds + other.seconds }
    }

    /// Milliseconds from the stream to the socket, in the mean; none if nothing came this way.
    fn mean(self) -> Option<f64> {
        (self.events > 0.0).then(|| self.seconds / self.events * 1e3)
    }
}

/// The figures, beside those of the floor and of the same load on one pod.
pub(super) fn figures(
    size: Size,
    gateway: &Turns<Spread>,
    counted: Counted,
    local: &Turns<Spread>,
    floor: Option<&Turns<Spread>>,
) -> Vec<Figure> {
    let figure = |name, unit, value, floor| size.figure("forwarded", name, unit, value, floor);
    let micros = |turns: &Turns<Spread>| turns.middle(|turn| turn.micros);
    let p95 = millis_at(0.95, gateway);
    let mut figures = vec![
        figure("CPU per event, all pods", "us", micros(gateway), floor.map(micros)),
        figure("latency p95 added by forwarding", "ms", p95 - millis_at(0.95, local), None),
        figure("latency p95", "ms", p95, floor.map(|floor| millis_at(0.95, floor))),
        figure("latency p99", "ms", millis_at(0.99, gateway), floor.map(|floor| millis_at(0.99, floor))),
        figure("until the stream confirms, p95", "ms", confirmed_at(0.95, gateway), floor.map(|floor| confirmed_at(0.95, floor))),
        figure("events forwarded", "%", counted.share(), None),
    ];
    let Counted { forwarded, local } = counted;
    figures.extend(forwarded.mean().map(|mean| figure("stream to socket, forwarded, mean", "ms", mean, None)));
    figures.extend(local.mean().map(|mean| figure("stream to socket, not forwarded, mean", "ms", mean, None)));
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_and_means_are_of_what_was_added() {
        let counted = |forwarded, local| {
            let way = |(events, seconds)| Way { events, seconds };
            Counted { forwarded: way(forwarded), local: way(local) }
        };
        let turns = [((10.0, 2.4), (0.0, 1.0)), ((30.0, 2.9), (0.0, 1.0)), ((40.0, 3.0), (10.0, 1.0))];
        let turns = turns.map(|(forwarded, local)| counted(forwarded, local));
        let added = turns[1].since(turns[0]).and(turns[2].since(turns[1]));
        assert!((added.share() - 75.0).abs() < 1e-9);
        assert!((added.forwarded.mean().unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(counted((0.0, 0.0), (1.0, 1.0)).forwarded.mean(), None);
    }
}
