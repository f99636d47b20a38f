//! What a socket was told of where it stands in the stream, and what those got that came back with it.

use std::collections::HashMap;

use super::{A_RESUME_IS_WHOLE, THE_PLACE_IS_SAFE};
use crate::{
    history::{History, Moment, Published, Socket},
    plan::{Person, Topic},
};

/// What was missed by somebody who was told to have it.
#[must_use]
pub fn places(history: &History, people: &[Person]) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    for (number, socket) in history.sockets.iter().enumerate() {
        let who = people[socket.person].who;
        let told = Told::of(socket);
        let got: HashMap<u64, Moment> = socket.events.iter().map(|(at, seen)| (seen.seq, *at)).collect();
        let mut say = |invariant, what: String| wrong.push((invariant, format!("socket {number} ({}): {what}", socket.owner)));
        for (seq, event) in (1..).zip(&history.published) {
            if !who.wants(event.topic, |chat| socket.asked.contains(&chat)) || !is_owed(socket, seq, event) {
                continue;
            }
            let came = got.get(&seq).copied();
            let announced = socket.gaps.iter().find(|(at, gap)| match gap.range {
                Some((first, last)) => (first..=last).contains(&seq),
                None => event.stored < *at,
            });
            let at = came.into_iter().chain(announced.map(|(at, _)| *at)).min();
            // A pod that gives an event up tells the sessions it was for as soon as it reaches their pod: a known limit.
            let is_given_up = event.terminated.is_some();
            // What is of a chat that was given up by then is not owed any more.
            let chat_until = socket.owed(event.topic, event.stored).and_then(|owed| owed.until);
            if let Some(told_at) = told.has_up_to(seq)
                && chat_until.is_none_or(|until| until > told_at)
                && at.is_none_or(|at| at > told_at)
                && !is_given_up
            {
                say(THE_PLACE_IS_SAFE, format!("was told to have all up to {seq} at {told_at:?}, which came at {came:?}"));
            }
            if is_replayed(socket, seq, event) && at.is_none() && socket.ended.is_none() {
                say(A_RESUME_IS_WHOLE, format!("came back with {:?} and never got {seq}", socket.cursor));
            }
        }
        if let Some(count) = socket.resumed {
            let replayed: Vec<u64> = socket.events.iter().take(count).map(|(_, seen)| seen.seq).collect();
            let is_whole = replayed.len() == count || socket.ended.is_some();
            if !is_whole || !replayed.is_sorted_by(|one, next| one < next) {
                say(A_RESUME_IS_WHOLE, format!("{count} events were to be replayed, and first came {replayed:?}"));
            }
        }
    }
    wrong
}

fn is_owed(socket: &Socket, seq: u64, event: &Published) -> bool {
    socket.owed(event.topic, event.stored).is_some() || is_replayed(socket, seq, event)
}

/// Is it owed because the client came back with a place before it?
fn is_replayed(socket: &Socket, seq: u64, event: &Published) -> bool {
    let (Some(cursor), Some(_), Some(ready)) = (socket.cursor, socket.resumed, socket.ready) else { return false };
    let on_a_route = match event.topic {
        Topic::Messages { chat, .. } => socket.chats.first().is_some_and(|first| first.from == ready && first.chat == chat),
        Topic::Chats { .. } | Topic::Agents { .. } => true,
    };
    seq > cursor && event.stored < ready && on_a_route
}

/// The places that a socket was told, each with when it was told that or a higher one first.
struct Told(Vec<(u64, Moment)>);

impl Told {
    fn of(socket: &Socket) -> Self {
        let mut rising: Vec<(u64, Moment)> = Vec::new();
        for (at, safe) in &socket.places {
            if rising.last().is_none_or(|(highest, _)| safe > highest) {
                rising.push((*safe, *at));
            }
        }
        Self(rising)
    }

    /// When it was told first to have everything up to there.
    fn has_up_to(&self, seq: u64) -> Option<Moment> {
        self.0.get(self.0.partition_point(|(safe, _)| *safe < seq)).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{history::Seen, plan::Who};

    const CHATS: Topic = Topic::Chats { company: 0, agent: 0 };

    fn moment(second: u64) -> Moment {
        Moment { at: Duration::from_secs(second), order: second }
    }

    /// Four events, of which the socket that came back with 1 in second 20 gets the last three.
    fn history() -> History {
        let event = |second: u64| Published {
            topic: CHATS,
            stored: moment(second),
            acked: Some(moment(second + 1)),
            acked_by: 0,
            terminated: None,
            terminated_by: 0,
            redelivered: false,
        };
        let seen = |seq: u64| (moment(20 + seq), Seen { seq, number: seq, topic: CHATS.code(), replayed: false });
        let socket = Socket {
            ready: Some(moment(20)),
            cursor: Some(1),
            resumed: Some(3),
            events: (2..=4).map(seen).collect(),
            places: vec![(moment(20), 1), (moment(24), 4)],
            ..Socket::default()
        };
        History { published: (10..14).map(event).collect(), sockets: vec![socket], ..History::default() }
    }

    fn judge(history: &History) -> Vec<&'static str> {
        let people = [Person { who: Who::User { company: 0, agent: 0, user: 0 }, pipe: 1024 }];
        places(history, &people).into_iter().map(|(invariant, _)| invariant).collect()
    }

    #[test]
    fn who_gets_all_after_the_cursor_and_is_told_no_more_than_that_is_fine() {
        assert_eq!(judge(&history()), Vec::<&str>::new());
    }

    #[test]
    fn a_place_beyond_what_came_is_seen() {
        let mut history = history();
        history.sockets[0].places = vec![(moment(20), 3)];
        assert_eq!(judge(&history), [THE_PLACE_IS_SAFE, THE_PLACE_IS_SAFE]);
    }

    #[test]
    fn a_resume_that_leaves_something_out_or_is_in_disorder_is_seen() {
        let mut history = history();
        history.sockets[0].events.remove(1);
        history.sockets[0].places.clear();
        assert_eq!(judge(&history), [A_RESUME_IS_WHOLE, A_RESUME_IS_WHOLE]);
        let mut history = self::history();
        history.sockets[0].events.swap(0, 1);
        assert_eq!(judge(&history), [A_RESUME_IS_WHOLE]);
    }
}
