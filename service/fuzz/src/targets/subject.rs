//! Which prefix, then the subject of an event.

use bytes::Bytes;
use daisi_ws_domain::{
    event::Address,
    ids::CompanyId,
    publication::{Publication, PublicationError},
    route::{RouteKey, Scope},
};

use crate::input::{Input, text};

const PREFIXES: [&str; 3] = ["wa", "eu.wa", "websocket"];

pub(super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let prefix = PREFIXES[usize::from(input.byte()) % PREFIXES.len()];
    let subject = text(input.rest());
    let event = Bytes::from_static(b"{}");
    let published = Publication::parse(prefix, &subject, &event);
    let Ok(address) = Address::parse(prefix, &subject) else {
        assert!(published.is_err(), "what is no address is published");
        return;
    };
    assert_eq!(address.subject(prefix), subject, "an address has another subject");
    let routes = address.routes();
    assert!((1..=4).contains(&routes.len()));
    for route in &routes {
        assert!(company(route).is_none_or(|company| company == address.company()), "a route of another company: {route:?}");
        assert!(!matches!((route, address.chat()), (RouteKey::Messages { chat, .. }, Some(of)) if chat != of));
    }
    match published {
        Ok(publication) => {
            assert_eq!((publication.subject(), publication.payload()), (&*subject, &event));
            let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>');
            assert!(subject.chars().all(plain) && subject.split('.').all(|token| !token.is_empty()), "{subject:?}");
        }
        Err(error) => assert_eq!(error, PublicationError::EmptyToken),
    }
}

fn company(route: &RouteKey) -> Option<&CompanyId> {
    match route {
        RouteKey::Chats { company, .. } | RouteKey::Messages { company, .. } => Some(company),
        RouteKey::Agents { company: Scope::Only(company), .. } => Some(company),
        RouteKey::Agents { company: Scope::Any, .. } => None,
    }
}
