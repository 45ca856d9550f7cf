//! Logits, and the distribution that they stand for.

/// Probabilities by definition, over the whole vocabulary: softmax, all but the k likeliest out, then all out that are not needed
/// for p.
pub(crate) fn by_definition(logits: &[f32], temperature: f64, top_k: usize, top_p: f64) -> Vec<f64> {
    let e: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / temperature).exp()).collect();
    let larger =
        |i: usize, e: &[f64]| (0..e.len()).filter(|&j| e[j] > e[i] || (e[j] == e[i] && j < i)).collect::<Vec<_>>();
    let kept: Vec<f64> = (0..e.len()).map(|i| if larger(i, &e).len() < top_k { e[i] } else { 0.0 }).collect();
    let total: f64 = kept.iter().sum();
    let before = |i: usize| larger(i, &kept).iter().map(|&j| kept[j] / total).sum::<f64>();
    let nucleus: Vec<f64> = (0..e.len())
        .map(|i| if kept[i] > 0.0 && (before(i) < top_p || larger(i, &kept).is_empty()) { kept[i] } else { 0.0 })
        .collect();
    let total: f64 = nucleus.iter().sum();
    nucleus.iter().map(|x| x / total).collect()
}

pub(crate) const LOGITS: [f32; 8] = [0.3, 2.0, -1.0, 1.5, 0.3, -7.0, 1.1, 0.0];
