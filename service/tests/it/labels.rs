//! The values of labels: a metric shows those that it was declared with, and no others, whatever happens.

use std::{collections::BTreeSet, fs, path::Path};

use daisi_ws_service::metrics::SPECS;

use crate::support::fleet::{Fleet, user};

/// Label values that a pod shows and that its metrics were not declared with.
fn undeclared(fleet: &Fleet, pod: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for family in fleet.pods[pod].metrics.gather() {
        let Some(spec) = SPECS.iter().find(|spec| spec.name == family.name()) else { continue };
        for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            let values = spec.labels.iter().find(|(label, _)| *label == pair.name()).map(|(_, values)| *values);
            // Without values: the peers, the one open set.
            if values.is_none_or(|values| !values.is_empty() && !values.contains(&pair.value())) {
                found.insert(format!("{}{{{}={:?}}}", spec.name, pair.name(), pair.value()));
            }
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_delivers_refuses_and_loses_its_store_shows_declared_values_alone() {
    let fleet = Fleet::start(2).await;
    let mut old = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let mut client = fleet.connect(1, user("acme", "a1", "sari")).await.unwrap();
    old.expect_close().await;
    fleet.publish("wa.acme.a1.chats", "{}");
    client.expect_event().await;
    fleet.publish("wa.acme.a1.nonsense", "{}");
    fleet.store.set_down(true);
    assert!(fleet.open(0, user("acme", "a1", "new"), 4096).await.is_err());
    for pod in 0..2 {
        assert_eq!(undeclared(&fleet, pod), BTreeSet::new());
    }
}

#[test]
fn no_value_of_a_label_is_written_where_it_is_counted() {
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                let flat: String = code.split_whitespace().collect();
                let by_hand = flat.split("with_label_values(&[").skip(1).filter(|rest| {
                    let values = rest.split(']').next().unwrap();
                    values.contains('"')
                });
                found.extend(by_hand.map(|rest| format!("{}: {}", path.display(), rest.chars().take(40).collect::<String>())));
            }
        }
    }
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, [] as [String; 0]);
}
