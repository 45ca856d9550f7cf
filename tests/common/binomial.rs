//! The binomial distribution, summed.

/// The least and the most of `n` that come true, each with chance `p`, so that fewer or more have a chance under `tail` together.
pub(crate) fn bounds(n: usize, p: f64, tail: f64) -> (usize, usize) {
    let least = |p: f64| {
        if p == 0.0 {
            return 0;
        }
        if p == 1.0 {
            return n;
        }
        // Logarithms, since the first terms are no f64: that of k + 1 is (n − k)/(k + 1)·p/(1 − p) times that of k.
        let (mut term, mut sum) = (n as f64 * (1.0 - p).ln(), 0.0);
        for k in 0..n {
            sum += term.exp();
            if sum > tail / 2.0 {
                return k;
            }
            term += ((n - k) as f64 / (k + 1) as f64).ln() + (p / (1.0 - p)).ln();
        }
        n
    };
    (least(p), n - least(1.0 - p))
}
