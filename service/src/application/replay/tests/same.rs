//! What a window answers is what the stream answers.

use daisi_ws_domain::{ids::ChatId, route::Scope};
use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::application::replay::window::{Piece, Window};

const SUBJECTS: [&str; 7] = [
    "wa.acme.a0.chats",
    "wa.acme.a1.chats",
    "wa.acme.a1.messages.c.1",
    "wa.acme.a1.messages.c",
    "wa.acme.a1.agents",
    "wa.other.a0.agents",
    "wa.no.route.of.ours",
];

fn routes() -> Vec<RouteKey> {
    let (company, agent) = (CompanyId::parse("acme").unwrap(), AgentId::parse("a1").unwrap());
    let messages =
        |chat| RouteKey::Messages { company: company.clone(), agent: agent.clone(), chat: ChatId::parse(chat).unwrap() };
    vec![
        route(0),
        route(1),
        route(2),
        messages("c.1"),
        messages("c"),
        RouteKey::Agents { company: Scope::Any, agent: Scope::Any },
        RouteKey::Agents { company: Scope::Only(company.clone()), agent: Scope::Any },
        RouteKey::Agents { company: Scope::Any, agent: Scope::Only(agent.clone()) },
    ]
}

fn now<T>(read: impl Future<Output = T>) -> T {
    read.now_or_never().expect("the memory stream does not wait")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_window_answers_as_the_stream_does_however_it_was_read(
        events in prop::collection::vec((0..SUBJECTS.len(), 0..40_usize), 1..60),
        begins in 0..60_u64,
        growth in prop::collection::vec((any::<bool>(), 1..12_u64), 0..12),
        asked in prop::collection::vec((0..8_usize, 0..60_u64, 0..60_u64, 1..9_usize, 1..120_usize), 1..30),
    ) {
        let (stream, handle) = stream();
        for (subject, bytes) in &events {
            stream.append(SUBJECTS[*subject], vec![b'x'; *bytes], Headers::default()).unwrap();
        }
        let (id, last) = (now(handle.bounds()).unwrap().stream, stream.last_seq());
        let memory = Arc::new(Memory::default());
        let read = |after, upto| {
            let request = SpanRequest { after, upto, max_events: usize::MAX, max_bytes: usize::MAX };
            let mut piece = Piece::new(&memory);
            piece.take("wa", now(handle.read_all(&request)).unwrap().events.into_iter());
            piece
        };
        let begins = begins.min(last);
        let mut window = Window::new(id, begins, begins, read(begins, begins));
        for (later, by) in growth {
            let (after, through) = (window.after(), window.through());
            if later {
                let upto = (through + by).min(last);
                window.append(upto, read(through, upto));
            } else if window.may_reach_back() {
                let from = after.saturating_sub(by);
                window.prepend(from, read(from, after));
            }
        }
        for (place, after, upto, max_events, max_bytes) in asked {
            let route = routes().swap_remove(place);
            let request = ReadRequest { route, after, upto, max_events, max_bytes };
            let Some(stretch) = window.read(id, &request) else {
                prop_assert!(after < window.after() || upto > window.through());
                continue;
            };
            let due = now(handle.read(&request)).unwrap();
            prop_assert_eq!(stretch, due);
            prop_assert!(window.read(StreamId(0), &request).is_none());
        }
        prop_assert_eq!(memory.used(), window.bytes());
        drop(window);
        prop_assert_eq!(memory.used(), 0);
    }
}
