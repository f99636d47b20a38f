//! Metrics as a pod exposes them.

/// The sum of a metric's series whose labels contain `label`.
#[must_use]
pub fn sum(text: &str, name: &str, label: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        ((labels.is_empty() || labels.starts_with('{')) && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP a x\na 1\na_total{path=\"local\"} 2\na_total{path=\"forwarded\"} 3\n";

    #[test]
    fn a_metric_is_summed_over_the_series_with_a_label() {
        assert_eq!(sum(METRICS, "a_total", "forwarded").to_bits(), 3_f64.to_bits());
        assert_eq!(sum(METRICS, "a_total", "").to_bits(), 5_f64.to_bits());
        assert_eq!(sum(METRICS, "a", "").to_bits(), 1_f64.to_bits());
    }
}
