use serde::{Deserialize, Serialize};

/// What is kept of the samples of a time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// The middle one.
    pub median: f64,
    /// A quarter of them are below it.
    pub low: f64,
    /// A quarter of them are above it.
    pub high: f64,
    /// The shortest.
    pub best: f64,
    /// How many there are.
    pub samples: usize,
}

/// What a comparison of two times comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The second is shorter by more than either spreads.
    Faster,
    /// The second is longer by more than either spreads.
    Slower,
    /// The difference is within the spreads.
    Same,
}

/// Medians closer than this are the same, however little the samples of one process spread: another process has other
/// addresses and other neighbours.
const GRAIN: f64 = 0.03;

impl Statistics {
    /// Of what was never done: it takes an endless time.
    pub const NEVER: Self =
        Statistics { median: f64::INFINITY, low: f64::INFINITY, high: f64::INFINITY, best: f64::INFINITY, samples: 0 };

    /// Of at least one sample; `None` if there is none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        // Between two samples in proportion.
        let at = |quarter: usize| {
            let (i, part) = (last * quarter / 4, (last * quarter % 4) as f64 / 4.0);
            sorted[i] + part * (sorted[(i + 1).min(last)] - sorted[i])
        };
        Some(Statistics { median: at(2), low: at(1), high: at(3), best: sorted[0], samples: sorted.len() })
    }

    /// Half the distance between the quartiles, as a part of the median.
    pub fn spread(&self) -> f64 {
        (self.high - self.low) / 2.0 / self.median
    }

    /// How `self` compares with `before`: different if the medians are apart by more than 3 % and neither lies between the
    /// other's quartiles.
    pub fn against(&self, before: &Statistics) -> Verdict {
        if self.median < before.median * (1.0 - GRAIN) && self.high < before.low {
            Verdict::Faster
        } else if self.median > before.median * (1.0 + GRAIN) && self.low > before.high {
            Verdict::Slower
        } else {
            Verdict::Same
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: &[f64]) -> Statistics {
        Statistics::of(samples).expect("samples")
    }

    #[test]
    fn quartiles_lie_between_samples() {
        assert_eq!(Statistics::of(&[]), None);
        let one = of(&[3.0]);
        assert_eq!((one.median, one.low, one.high, one.best, one.spread()), (3.0, 3.0, 3.0, 3.0, 0.0));
        let four = of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((four.median, four.low, four.high, four.best, four.samples), (2.5, 1.75, 3.25, 1.0, 4));
        let five = of(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((five.median, five.low, five.high), (3.0, 2.0, 4.0));
    }

    #[test]
    fn a_difference_has_to_leave_the_spreads_behind() {
        let wide = of(&[8.0, 9.0, 10.0, 11.0, 12.0]);
        let narrow = |middle: f64| of(&[middle * 0.999, middle, middle * 1.001]);
        assert_eq!(narrow(9.4).against(&wide), Verdict::Same);
        assert_eq!(narrow(8.5).against(&wide), Verdict::Faster);
        assert_eq!(narrow(11.5).against(&wide), Verdict::Slower);
        assert_eq!(wide.against(&narrow(11.5)), Verdict::Faster);
        assert_eq!(narrow(10.2).against(&narrow(10.0)), Verdict::Same);
        assert_eq!(narrow(10.4).against(&narrow(10.0)), Verdict::Slower);
        assert_eq!(narrow(9.6).against(&narrow(10.0)), Verdict::Faster);
    }
}
