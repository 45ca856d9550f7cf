//! From logits to an id.

use rand_pcg::{Lcg128Xsl64, rand_core::Rng};

use super::Strategy;

/// The ids that a [`Strategy::Sample`] can draw with their probabilities, likeliest first (of equals the lower id).
///
/// Logits are divided by the temperature; the `top_k` likeliest stay; of these the shortest beginning whose probabilities sum up to
/// `top_p`, at least one; what stays is scaled to sum up to 1. Arithmetic is f64.
///
/// ```
/// use tilewise::nn::generate::distribution;
/// let logits = [0.0, 1.0, -1.0].map(|x: f32| x * 2f32.ln()); // probabilities 2/7, 4/7, 1/7
/// let kept = distribution(&logits, 1.0, None, Some(0.8));
/// assert_eq!(kept.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 0]);
/// assert!((kept[0].1 - 2.0 / 3.0).abs() < 1e-6);
/// ```
pub fn distribution(logits: &[f32], temperature: f32, top_k: Option<usize>, top_p: Option<f32>) -> Vec<(u32, f64)> {
    let mut kept = likeliest(logits, top_k.unwrap_or(logits.len()).max(1));
    let Some(&(_, peak)) = kept.first() else { return Vec::new() };
    let peak = f64::from(peak);
    let mut total = 0.0;
    let mut weights: Vec<(u32, f64)> = Vec::with_capacity(kept.len());
    for (id, logit) in kept.drain(..) {
        let weight = ((f64::from(logit) - peak) / f64::from(temperature)).exp();
        weights.push((id, weight));
        total += weight;
    }
    if let Some(p) = top_p {
        let most = f64::from(p) * total;
        let mut sum = 0.0;
        let before = |&(_, weight): &(u32, f64)| {
            let open = sum < most;
            sum += weight;
            open
        };
        let count = weights.iter().copied().take_while(before).count().max(1);
        weights.truncate(count);
        total = weights.iter().map(|(_, weight)| weight).sum();
    }
    for (_, weight) in &mut weights {
        *weight /= total;
    }
    weights
}

/// The `count` largest with their places, largest first; of equals the earlier.
pub(super) fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    if count < all.len() {
        all.select_nth_unstable_by(count, order);
        all.truncate(count);
    }
    all.sort_unstable_by(order);
    all
}

/// `log softmax`, in f64.
pub(super) fn log_probabilities(logits: &[f32]) -> impl Fn(f32) -> f64 + use<> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - peak).exp()).sum();
    let norm = f64::from(peak) + sum.ln();
    move |logit| f64::from(logit) - norm
}

/// Makes ids less likely that are there already.
pub(super) fn penalize(logits: &mut [f32], penalty: f32, ids: impl Iterator<Item = u32>) {
    if penalty == 1.0 {
        return;
    }
    let mut seen: Vec<u32> = ids.collect();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

/// Chooses ids for one sequence.
pub(super) struct Sampler {
    strategy: Strategy,
    random: Lcg128Xsl64,
}

impl Sampler {
    /// PCG-XSL-RR 128/64 (O'Neill, 2014): small, fast, the same everywhere, and with a stream for each sequence, so that what one draws
    /// doesn't hang on the others.
    pub(super) fn new(strategy: Strategy, item: usize) -> Self {
        let seed = match strategy {
            Strategy::Sample { seed, .. } => seed,
            Strategy::Greedy | Strategy::Beam { .. } => 0,
        };
        Sampler { strategy, random: Lcg128Xsl64::new(seed.into(), item as u128) }
    }

    pub(super) fn choose(&mut self, logits: &[f32]) -> u32 {
        let first = |kept: &[(u32, f32)]| kept.first().map_or(0, |(id, _)| *id);
        let Strategy::Sample { temperature, top_k, top_p, .. } = self.strategy else {
            return first(&likeliest(logits, 1));
        };
        let kept = distribution(logits, temperature, top_k, top_p);
        // 53 bits: each multiple of 2⁻⁵³ in [0, 1) is as likely as the others.
        let mut rest = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        for &(id, probability) in &kept {
            if rest < probability {
                return id;
            }
            rest -= probability;
        }
        // Rounding left a little.
        kept.last().map_or(0, |(id, _)| *id)
    }
}
