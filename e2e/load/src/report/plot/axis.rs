//! From values to places, and the values that are written at an axis.

/// An axis on which equal factors are equally far apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogAxis {
    /// The value and the place of the beginning.
    from: (f64, f64),
    /// Those of the end.
    to: (f64, f64),
}

impl LogAxis {
    /// An axis between two values, which stand at these places. Both are positive and not the same.
    pub(super) fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        Self { from, to }
    }

    /// Where a value is; one beyond the ends is at the end, and what is no positive number at the beginning.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value =
            if value.is_nan() { self.from.0 } else { value.clamp(self.from.0.min(self.to.0), self.from.0.max(self.to.0)) };
        let part = (value / self.from.0).ln() / (self.to.0 / self.from.0).ln();
        self.from.1 + part * (self.to.1 - self.from.1)
    }
}

/// Values with one digit (1, 2 or 5) that lie around all of `values`; the first and the last are outside of them or the same.
pub(super) fn round_values(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for value in values.filter(|value| value.is_finite() && *value > 0.0) {
        (least, most) = (least.min(value), most.max(value));
    }
    if most <= 0.0 {
        return vec![1.0, 10.0];
    }
    let ladder = (-6..=6).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    let rungs: Vec<f64> = ladder.collect();
    let first = rungs.iter().rposition(|rung| *rung <= least).unwrap_or(0);
    let last = rungs.iter().position(|rung| *rung >= most).unwrap_or(rungs.len() - 1).max(first + 1);
    rungs.get(first..=last.min(rungs.len() - 1)).unwrap_or_default().to_vec()
}

/// The least value that is no less than this one and whose quarters have few digits.
pub(super) fn round_above(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-6).log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(10.0 * power)
}

/// A value as it is written at an axis.
pub(super) fn label(value: f64) -> String {
    if value >= 1000.0 { format!("{}k", value / 1000.0) } else { format!("{}", (value * 1e4).round() / 1e4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_factors_are_equally_far_apart() {
        let axis = LogAxis::new((1.0, 0.0), (100.0, 200.0));
        for (value, place) in [(1.0, 0.0), (10.0, 100.0), (100.0, 200.0), (1000.0, 200.0), (0.0, 0.0), (f64::NAN, 0.0)] {
            assert!((axis.place(value) - place).abs() < 1e-9, "{value}: {}", axis.place(value));
        }
    }

    #[test]
    fn the_end_of_an_axis_from_zero_has_quarters_with_few_digits() {
        for (value, end) in [(18.7, 20.0), (20.0, 20.0), (143.0, 160.0), (9.0, 10.0), (0.011, 0.012)] {
            assert!((round_above(value) - end).abs() < 1e-9, "{value}: {}", round_above(value));
        }
    }

    #[test]
    fn round_values_lie_around_what_is_shown() {
        assert_eq!(round_values([3.0, 40.0].into_iter()), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(round_values([5.0, 5.0].into_iter()), [5.0, 10.0]);
        assert_eq!(round_values([0.0, f64::NAN].into_iter()), [1.0, 10.0]);
    }
}
