//! Variables that are none of the gateway's, and look as if they were meant to be.

use std::{collections::BTreeMap, ffi::OsString};

use crate::config::keys::PREFIX;

/// How much of the longer of two names may differ for one to be the other, misspelt.
const MOST: f64 = 0.2;
/// Fewer words than these at the end of a name say too little of which one is meant.
const LEAST_WORDS: usize = 2;

/// A variable that nobody reads, and the one that may have been meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Misspelt {
    pub(in crate::config) variable: String,
    pub(in crate::config) meant: String,
}

/// Those among the variables that are near one of `known`, but not of it. What Kubernetes makes for Services is nobody's mistake.
pub(in crate::config) fn misspelt(environment: &BTreeMap<String, OsString>, known: &[String]) -> Vec<Misspelt> {
    let strange = environment.iter().filter(|(name, value)| !known.contains(name) && !is_made_by_kubernetes(name, value));
    let found =
        strange.filter_map(|(name, _)| Some(Misspelt { variable: name.clone(), meant: nearest(name, known)?.to_owned() }));
    found.collect()
}

fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let rest = name.strip_prefix(PREFIX)?;
    let bare = |known: &'a String| known.strip_prefix(PREFIX).map(|bare| (bare, known.as_str()));
    let without_section = || {
        let is_tail = |bare: &str| bare.strip_suffix(rest).is_some_and(|section| section.ends_with('_'));
        let is_telling = rest.split('_').count() >= LEAST_WORDS;
        known.iter().filter_map(bare).find(|(bare, _)| is_telling && is_tail(bare)).map(|(_, known)| known)
    };
    let alike = |(bare, known): (&str, &'a str)| (1.0 - strsim::normalized_damerau_levenshtein(rest, bare), known);
    let closest = known.iter().filter_map(bare).map(alike).min_by(|(one, _), (other, _)| one.total_cmp(other));
    closest.filter(|(difference, _)| *difference <= MOST).map(|(_, known)| known).or_else(without_section)
}

/// For a Service whose name begins as the gateway's do, the containers of its namespace get such variables.
fn is_made_by_kubernetes(name: &str, value: &OsString) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let is_number = |word: &str| word.parse::<u16>().is_ok();
    match words.as_slice() {
        [.., "SERVICE", "HOST" | "PORT"] | [.., "PORT", _, "TCP" | "UDP" | "SCTP", "PROTO" | "PORT" | "ADDR"] => true,
        [.., "PORT"] | [.., "PORT", _, "TCP" | "UDP" | "SCTP"] => value.to_string_lossy().contains("://"),
        // A port that has a name.
        words => words.windows(2).any(|pair| pair == ["SERVICE", "PORT"]) && is_number(&value.to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{defaults, leaves, variable};

    fn found(variables: &[(&str, &str)]) -> Vec<String> {
        let known: Vec<String> = leaves(&defaults().unwrap()).keys().map(|key| variable(key)).collect();
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        misspelt(&environment, &known).into_iter().map(|found| format!("{} for {}", found.variable, found.meant)).collect()
    }

    #[test]
    fn a_misspelt_section_a_missing_one_and_a_slip_are_told_with_what_was_meant() {
        for (given, meant) in [
            ("DAISI_WS_SERVR_HTTP_PORT", "DAISI_WS_SERVER_HTTP_PORT"),
            ("DAISI_WS_HTTP_PORT", "DAISI_WS_SERVER_HTTP_PORT"),
            ("DAISI_WS_POD_ID", "DAISI_WS_SERVER_POD_ID"),
            ("DAISI_WS_RESUM_MAX_EVENTS", "DAISI_WS_RESUME_MAX_EVENTS"),
            ("DAISI_WS_NAST_URL", "DAISI_WS_NATS_URL"),
            ("DAISI_WS_AUHT_SECRET_TOKEN", "DAISI_WS_AUTH_SECRET_TOKEN"),
        ] {
            assert_eq!(found(&[(given, "8090")]), [format!("{given} for {meant}")]);
        }
    }

    #[test]
    fn names_that_are_known_or_far_from_all_and_those_of_kubernetes_are_nobodys_mistake() {
        let none: [String; 0] = [];
        assert_eq!(
            found(&[
                ("DAISI_WS_SERVER_HTTP_PORT", "8090"),
                ("DAISI_WS_COLOUR_OF_THE_DOOR", "red"),
                ("DAISI_WS_TOKEN", "x"),
                ("DAISI_WS_HTTP_PORT", "tcp://10.0.0.1:80"),
                ("DAISI_WS_HTTP_SERVICE_HOST", "10.0.0.1"),
                ("DAISI_WS_HTTP_SERVICE_PORT", "80"),
                ("DAISI_WS_HTTP_SERVICE_PORT_GRPC", "50051"),
                ("DAISI_WS_HTTP_PORT_80_TCP", "tcp://10.0.0.1:80"),
                ("DAISI_WS_HTTP_PORT_80_TCP_PORT", "80"),
                ("DAISI_WS_HTTP_PORT_80_TCP_ADDR", "10.0.0.1"),
            ]),
            none
        );
    }
}
