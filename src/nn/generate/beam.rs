//! Beam search over the logits of each step; nothing in here knows a device.

use super::{
    End, Sequence,
    sample::{likeliest, log_probabilities, penalize},
};

/// The search of one prompt.
pub(super) struct Beams {
    beams: usize,
    length_penalty: f64,
    max_tokens: usize,
    live: Vec<Beam>,
    best: Option<Finished>,
    done: bool,
}

#[derive(Clone)]
struct Beam {
    ids: Vec<u32>,
    log_probability: f64,
}

struct Finished {
    score: f64,
    sequence: Sequence,
}

/// How a beam goes on: the place of the one that it continues, and its new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) parent: usize,
    pub(super) id: u32,
}

/// What does not change during a search.
pub(super) struct Rules<'a> {
    pub(super) prompt: &'a [u32],
    pub(super) stop: &'a [u32],
    pub(super) repetition_penalty: f32,
}

impl Beams {
    pub(super) fn new(beams: usize, length_penalty: f32, max_tokens: usize) -> Self {
        let live = vec![Beam { ids: Vec::new(), log_probability: 0.0 }];
        Beams { beams, length_penalty: length_penalty.into(), max_tokens, live, best: None, done: false }
    }

    pub(super) fn done(&self) -> bool {
        self.done
    }

    /// How many beams are live: the first ones.
    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    /// How many ids the beams have.
    pub(super) fn length(&self) -> usize {
        self.live.first().map_or(0, |beam| beam.ids.len())
    }

    /// Takes the logits of each live beam and returns how the new beams came about, likeliest first; none if the search is over.
    pub(super) fn advance(&mut self, logits: &mut [Vec<f32>], rules: &Rules<'_>) -> Vec<Next> {
        // With so many of each beam there are enough that don't stop.
        let wanted = self.beams + rules.stop.len();
        let mut candidates: Vec<(f64, Next)> = Vec::with_capacity(self.live.len() * wanted);
        for (parent, (beam, logits)) in self.live.iter().zip(logits).enumerate() {
            penalize(logits, rules.repetition_penalty, rules.prompt.iter().chain(&beam.ids).copied());
            let log_probability = log_probabilities(logits);
            let likeliest = likeliest(logits, wanted).into_iter();
            candidates
                .extend(likeliest.map(|(id, x)| (beam.log_probability + log_probability(x), Next { parent, id })));
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut live, mut next) = (Vec::with_capacity(self.beams), Vec::with_capacity(self.beams));
        for (log_probability, step) in candidates {
            if live.len() == self.beams {
                break;
            }
            let mut ids = self.live[step.parent].ids.clone();
            if rules.stop.contains(&step.id) {
                self.finish(ids, End::Stop(step.id), log_probability);
            } else {
                ids.push(step.id);
                live.push(Beam { ids, log_probability });
                next.push(step);
            }
        }
        self.live = live;
        if self.is_settled() {
            (self.done, self.live) = (true, Vec::new());
        } else if self.length() == self.max_tokens {
            self.close(End::MaxTokens);
        }
        if self.done { Vec::new() } else { next }
    }

    /// Ends the search with what it has.
    pub(super) fn close(&mut self, end: End) {
        for beam in std::mem::take(&mut self.live) {
            self.finish(beam.ids, end, beam.log_probability);
        }
        self.done = true;
    }

    /// Whether no live beam can still beat the best finished sequence: probabilities only fall, and of the lengths that a
    /// sequence may still reach the first or the last makes the most of it.
    fn is_settled(&self) -> bool {
        let Some(Finished { score: best, .. }) = self.best else { return self.live.is_empty() };
        self.live.iter().all(|beam| {
            let attainable = [beam.ids.len() + 1, self.max_tokens].map(|n| self.score(beam.log_probability, n));
            attainable.into_iter().all(|score| score <= best)
        })
    }

    fn score(&self, log_probability: f64, length: usize) -> f64 {
        log_probability / (length.max(1) as f64).powf(self.length_penalty)
    }

    fn finish(&mut self, ids: Vec<u32>, end: End, log_probability: f64) {
        let length = ids.len() + usize::from(matches!(end, End::Stop(_)));
        let score = self.score(log_probability, length);
        if self.best.as_ref().is_none_or(|best| score > best.score) {
            let sequence = Sequence { ids, end, log_probability: Some(log_probability) };
            self.best = Some(Finished { score, sequence });
        }
    }

    pub(super) fn into_best(self) -> Sequence {
        let none = Sequence { ids: Vec::new(), end: End::Cancelled, log_probability: None };
        self.best.map_or(none, |best| best.sequence)
    }
}
