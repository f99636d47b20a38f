//! A run as a picture: time goes to the right, each slot and each person has a row.

use std::{fmt::Write as _, time::Duration};

use crate::{
    history::{End, History, Socket, TroubleKind},
    plan::Plan,
    run::Outcome,
};

const LEFT: f64 = 110.0;
const SECOND: f64 = 22.0;
const ROW: f64 = 26.0;
const SOCKET: f64 = 9.0;
/// Colours of pods, by slot.
const SLOTS: [&str; 5] = ["#3b6fb5", "#2f8f5b", "#b5762a", "#7d4fa8", "#2d8b96"];

struct Drawing {
    svg: String,
    y: f64,
}

fn x(at: Duration) -> f64 {
    LEFT + at.as_secs_f64() * SECOND
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The picture of a run, as SVG.
#[must_use]
pub fn picture(plan: &Plan, outcome: &Outcome) -> String {
    let history = &outcome.history;
    let mut drawing = Drawing { svg: String::new(), y: 40.0 };
    drawing.pods(plan, history, outcome.took);
    drawing.global(history, outcome.took);
    drawing.people(plan, history, outcome.took);
    drawing.steps(plan);
    drawing.axis(outcome.took);
    drawing.breaches(outcome);
    let (width, height) = (x(outcome.took) + 30.0, drawing.y + 30.0);
    let size = format!("width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"11\"");
    let ground = "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>";
    let title = format!("<text x=\"8\" y=\"18\" font-size=\"13\">seed {}</text>", plan.seed);
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" {size}>\n{ground}\n{title}\n{}</svg>\n", drawing.svg)
}

impl Drawing {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.svg, "{line}");
    }

    fn row(&mut self, name: &str) -> f64 {
        let y = self.y;
        self.line(format_args!("<text x=\"8\" y=\"{:.1}\">{}</text>", y + 12.0, escaped(name)));
        self.y += ROW;
        y
    }

    fn bar(&mut self, (from, until): (Duration, Duration), (y, height): (f64, f64), (fill, title): (&str, &str)) {
        let width = (x(until) - x(from)).max(1.0);
        self.line(format_args!(
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"><title>{}</title></rect>",
            x(from),
            escaped(title)
        ));
    }

    fn pods(&mut self, plan: &Plan, history: &History, end: Duration) {
        for slot in 0..plan.slots {
            let y = self.row(&format!("slot {slot}"));
            for life in history.pods.iter().filter(|life| life.slot == slot) {
                let time = (life.from, life.until.unwrap_or(end));
                self.bar(time, (y, 16.0), (SLOTS[slot % SLOTS.len()], &life.id));
            }
            for trouble in history.troubles.iter().filter(|trouble| trouble.slot == Some(slot)) {
                let time = (trouble.from, trouble.until.unwrap_or(end));
                self.bar(time, (y + 9.0, 7.0), (colour(trouble.kind), &format!("{:?}", trouble.kind)));
            }
        }
        for drain in &history.drains {
            let Some(life) = history.pods.iter().find(|life| life.id == drain.pod) else { continue };
            let y = 40.0 + ROW * f64::from(u16::try_from(life.slot).unwrap_or(0));
            self.bar((drain.began, drain.ended.unwrap_or(end)), (y, 4.0), ("#222222", "drains"));
        }
    }

    fn global(&mut self, history: &History, end: Duration) {
        let y = self.row("store, stream");
        for trouble in history.troubles.iter().filter(|trouble| trouble.slot.is_none()) {
            let time = (trouble.from, trouble.until.unwrap_or(end));
            self.bar(time, (y, 16.0), (colour(trouble.kind), &format!("{:?}", trouble.kind)));
        }
    }

    fn people(&mut self, plan: &Plan, history: &History, end: Duration) {
        for (person, of) in plan.people.iter().enumerate() {
            let y = self.row(&format!("person {person}"));
            let title = format!("{:?}", of.who);
            self.line(format_args!("<title>{}</title>", escaped(&title)));
            let sockets = history.sockets.iter().enumerate().filter(|(_, socket)| socket.person == person);
            let mut lane = 0.0;
            for (number, socket) in sockets {
                self.socket(number, socket, y + lane, end);
                lane = if lane == 0.0 { SOCKET + 2.0 } else { 0.0 };
            }
        }
    }

    fn socket(&mut self, number: usize, socket: &Socket, y: f64, end: Duration) {
        let ended = socket.ended.map_or(end, |(at, _)| at.at);
        let title = format!("socket {number}, {}: {:?}", socket.owner, socket.ended.map(|(_, end)| end));
        self.bar((socket.admitted.at, ended), (y, SOCKET), (SLOTS[socket.slot % SLOTS.len()], &title));
        for (from, until) in &socket.stalls {
            self.bar((from.at, until.map_or(ended, |until| until.at)), (y + 2.0, 5.0), ("#999999", "reads nothing"));
        }
        for (at, _) in &socket.events {
            let x = x(at.at);
            let (top, bottom) = (y + 2.0, y + SOCKET - 2.0);
            self.line(format_args!("<path d=\"M{x:.1} {top:.1}V{bottom:.1}\" stroke=\"#ffffff\" stroke-width=\"0.6\"/>"));
        }
        for (at, gap) in &socket.gaps {
            let title = format!("{gap:?}");
            self.bar((at.at, at.at), (y - 2.0, SOCKET + 4.0), ("#e0b000", &title));
        }
        if let Some((at, End::Closed(code))) = socket.ended {
            self.line(format_args!("<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"8\">{code}</text>", x(at.at) + 1.0, y + 8.0));
        }
    }

    fn steps(&mut self, plan: &Plan) {
        let y = self.row("steps");
        for step in &plan.steps {
            let at = Duration::from_millis(step.at);
            let fill = if step.action.is_fault() { "#c0392b" } else { "#888888" };
            self.bar((at, at), (y, 16.0), (fill, &format!("{:?} at {at:?}", step.action)));
        }
    }

    fn axis(&mut self, end: Duration) {
        for second in (0..=end.as_secs()).step_by(5) {
            let (x, bottom) = (x(Duration::from_secs(second)), self.y);
            self.line(format_args!("<path d=\"M{x:.1} 34V{bottom:.1}\" stroke=\"#000000\" stroke-opacity=\"0.12\"/>"));
            self.line(format_args!("<text x=\"{x:.1}\" y=\"32\" fill=\"#666666\">{second} s</text>"));
        }
    }

    fn breaches(&mut self, outcome: &Outcome) {
        for breach in outcome.breaches.iter().take(8) {
            let x = x(breach.at);
            let bottom = self.y;
            self.line(format_args!("<path d=\"M{x:.1} 34V{bottom:.1}\" stroke=\"#d00000\" stroke-width=\"1.5\"/>"));
            let text = escaped(&format!("{}: {}", breach.invariant, breach.what));
            self.line(format_args!("<text x=\"8\" y=\"{:.1}\" fill=\"#d00000\">{text}</text>", bottom + 14.0));
            self.y += 16.0;
        }
    }
}

fn colour(kind: TroubleKind) -> &'static str {
    match kind {
        TroubleKind::Frozen => "#7fc4ff",
        TroubleKind::Down => "#000000",
        TroubleKind::Links => "#f08a24",
        TroubleKind::Store => "#c0392b",
        TroubleKind::LostData => "#8e1b5a",
        TroubleKind::Stream => "#6b6b00",
    }
}
