use super::*;

/// The lines of the text format that are series.
fn series(metrics: &Metrics) -> usize {
    let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
    text.lines().filter(|line| line.starts_with("dws_")).count()
}

#[test]
fn names_have_a_prefix_and_the_unit_or_suffix_of_their_kind() {
    for spec in SPECS {
        assert!(spec.name.starts_with("dws_"), "{}", spec.name);
        assert!(spec.buckets.is_empty() || spec.name.ends_with("_seconds"), "{}", spec.name);
    }
    for family in Metrics::new().unwrap().gather() {
        let counts = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
        assert_eq!(counts, family.name().ends_with("_total"), "{}", family.name());
    }
}

#[test]
fn a_pod_has_exactly_the_series_that_it_can_have_and_a_peers_go_with_it() {
    let bound = |peers| SPECS.iter().map(|spec| spec.series(peers)).sum::<usize>();
    let metrics = Metrics::new().unwrap();
    assert_eq!(series(&metrics), bound(0));
    // What a Prometheus holds for one pod, whatever its sessions, users, chats and events.
    assert!(bound(0) <= 750 && bound(1) - bound(0) == 8, "{} and {} a peer", bound(0), bound(1) - bound(0));
    for peer in 0..100 {
        metrics.know_peer(&format!("pod-{peer}"));
    }
    assert_eq!(series(&metrics), bound(100));
    for peer in 0..100 {
        metrics.forget_peer(&format!("pod-{peer}"));
    }
    assert_eq!(series(&metrics), bound(0));
}

#[test]
fn the_targets_of_latency_are_bounds_of_buckets() {
    assert!([0.05, 0.1, 0.2].iter().all(|target| LATENCY.contains(target) && DELIVERY.contains(target)));
}

#[tokio::test]
async fn the_process_and_its_runtime_are_shown() {
    let text = String::from_utf8(Metrics::new().unwrap().encode().unwrap()).unwrap();
    for name in PROCESS {
        assert!(text.contains(&format!("\n{name} ")), "{name}");
    }
    assert!(text.contains("dws_tokio_workers 1\n"), "{text}");
}
