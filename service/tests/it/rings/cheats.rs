//! Each way around the rings that somebody could try is found.

use std::collections::BTreeMap;

use super::{
    breaches,
    imports::{Names, circles},
    path,
};

/// What the rules say of one file among others.
fn breaks(module: &[&str], code: &str) -> Vec<String> {
    let mut files: BTreeMap<_, _> = [
        &[][..],
        &["adapters"],
        &["adapters", "redis"],
        &["adapters", "redis", "keys"],
        &["adapters", "nats"],
        &["application"],
        &["application", "hub"],
        &["application", "hub", "session"],
        &["application", "dispatch"],
        &["ports"],
        &["gateway"],
        &["dev"],
    ]
    .iter()
    .map(|module| (path(module), String::new()))
    .collect();
    files.insert(path(module), code.to_owned());
    breaches(&Names::of_files(&files))
}

#[test]
fn what_the_rings_allow_is_no_breach() {
    for code in [
        "use crate::ports::Routes;",
        "use super::registry::Hub;",
        "use std::sync::Arc; use tokio::sync::mpsc;",
        "fn f() { crate::metrics::count(); }",
        "#[cfg(test)] mod tests { use crate::adapters::redis::Store; }",
        "/// See [`crate::adapters::redis`].\nfn f() {}",
        r#"fn f() -> &'static str { "crate::adapters::redis" }"#,
    ] {
        assert_eq!(breaks(&["application", "hub", "session"], code), [] as [String; 0], "{code}");
    }
}

#[test]
fn every_way_to_name_an_adapter_from_a_use_case_is_found() {
    for code in [
        "use crate::adapters::redis::Store;",
        "use crate::{adapters::redis::Store, ports::Routes};",
        "use crate::{ports::Routes, adapters::{nats, redis::{keys::session_key, Store}}};",
        "use super::super::super::adapters::redis::Store;",
        "use super::super::{super::adapters::redis, hub};",
        "use self::super::super::super::adapters::redis;",
        "use crate::adapters;",
        "use crate::adapters as inner;",
        "use crate::{self as root};",
        "use crate as root; fn f() { root::adapters::redis::f(); }",
        "use super::super::super as root; use root::adapters::redis::Store;",
        "use crate::*;",
        "use crate::adapters::*;",
        "pub use crate::adapters::redis::Store;",
        "fn f() { crate::adapters::redis::connect(); }",
        "fn f() { super::super::super::adapters::redis::connect(); }",
        "fn f(store: &crate::adapters::redis::Store) {}",
        "type Store = crate::adapters::redis::Store;",
        "impl From<crate::adapters::redis::Error> for Mine {}",
        "fn f() { use crate::adapters::redis::Store; }",
        "mod inner { use super::super::super::super::adapters::redis::Store; }",
        "fn f() { println!(\"{}\", crate::adapters::redis::NAME); }",
        "fn f() { m!(use crate::{adapters::redis}); }",
        "macro_rules! m { () => { $crate::adapters::redis::connect() } }",
        "#[serde(with = \"x\", default = crate::adapters::redis::zero)] struct S;",
        "#[path = \"../../adapters/redis/mod.rs\"] mod mine;",
        "include!(\"../../adapters/redis/mod.rs\");",
        "use daisi_ws_service::adapters::redis::Store;",
        "#[cfg(any(test, not(test)))] use crate::adapters::redis::Store;",
        "const _: () = { use crate::adapters::redis::Store; };",
    ] {
        assert_ne!(breaks(&["application", "hub", "session"], code), [] as [String; 0], "{code}");
    }
}

#[test]
fn libraries_of_adapters_are_found_however_they_come_in() {
    for code in [
        "use redis::Client;",
        "use ::redis::Client;",
        "use {redis::Client, std::sync::Arc};",
        "extern crate redis as store;",
        "extern crate redis as store; use store::Client;",
        "use redis as store;",
        "fn f() { redis::Client::open(\"\"); }",
        "fn f() -> tonic::Status { todo() }",
        "pub use axum::Router;",
        "#[derive(prost::Message)] struct S;",
    ] {
        assert_ne!(breaks(&["application", "hub", "session"], code), [] as [String; 0], "{code}");
        assert_ne!(breaks(&["ports"], code), [] as [String; 0], "{code}");
    }
}

#[test]
fn an_adapter_that_names_another_or_who_puts_it_together_is_found() {
    let (top, below) = (&["adapters", "redis"][..], &["adapters", "redis", "keys"][..]);
    for (module, code) in [
        (top, "use crate::adapters::nats::Source;"),
        (top, "use super::nats::Source;"),
        (top, "use super::super::gateway::Gateway;"),
        (below, "use super::{super::nats, keys};"),
        (below, "use super::super::super::gateway::Gateway;"),
        (below, "use crate::adapters;"),
        (below, "use crate::{dev, ports};"),
        (below, "use crate::pod::Pod;"),
    ] {
        assert_ne!(breaks(module, code), [] as [String; 0], "{code}");
    }
    assert_eq!(breaks(&["adapters", "redis", "keys"], "use super::Store; use crate::ports::Routes;"), [] as [String; 0]);
}

#[test]
fn a_use_case_that_names_one_above_it_is_found() {
    for code in [
        "use crate::application::dispatch::Dispatcher;",
        "use crate::application;",
        "use super::super::dispatch::Dispatcher;",
        "use super::super as all; fn f() { all::dispatch::f(); }",
        "use crate::{application::{dispatch::Dispatcher, hub::registry::Hub}};",
    ] {
        assert_ne!(breaks(&["application", "hub", "session"], code), [] as [String; 0], "{code}");
    }
    assert_eq!(breaks(&["application", "dispatch"], "use crate::application::hub::session::Session;"), [] as [String; 0]);
}

#[test]
fn a_circle_of_files_is_found_however_it_is_closed() {
    let circle = |back: &str| {
        let files = [
            (path(&[]), String::new()),
            (path(&["a"]), "use crate::b::B;".to_owned()),
            (path(&["b"]), "use crate::c::C;".to_owned()),
            (path(&["c"]), back.to_owned()),
            (path(&["c", "d"]), String::new()),
        ];
        circles(&Names::of_files(&files.into_iter().collect()).needs()).len()
    };
    for back in [
        "use crate::a::A;",
        "use super::a::A;",
        "use super::{a::A, x::X};",
        "fn f() { crate::a::f(); }",
        "fn f() -> super::a::A { todo() }",
        "mod inner { use super::super::a::A; }",
        "use crate as root; fn f() { root::a::f(); }",
    ] {
        assert_eq!(circle(back), 1, "{back}");
    }
    for none in ["", "use crate::x::X;", "pub use crate::a::A;", "mod d; use d::D;"] {
        assert_eq!(circle(none), 0, "{none}");
    }
    // A parent that needs its child, which needs its parent.
    let files = [
        (path(&[]), String::new()),
        (path(&["p"]), "mod child; fn f() { child::f(); } pub struct P;".to_owned()),
        (path(&["p", "child"]), "use super::P; fn f() {}".to_owned()),
    ];
    assert_eq!(circles(&Names::of_files(&files.into_iter().collect()).needs()).len(), 1);
}
