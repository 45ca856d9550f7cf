use std::time::Duration;

/// A request to a [`Generator`](super::Generator).
///
/// ```
/// use tilewise::nn::generate::{Request, Strategy};
/// let request = Request {
///     strategy: Strategy::Sample { temperature: 0.8, top_k: Some(40), top_p: Some(0.95), seed: 7 },
///     stop: vec![2],
///     ..Request::new(vec![vec![1, 17, 4], vec![1, 9]], 20)
/// };
/// assert_eq!(request.max_tokens, 20);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The ids that each sequence begins with; at least one each. For an encoder–decoder the beginning of the target.
    pub prompts: Vec<Vec<u32>>,
    /// The ids that an encoder–decoder reads, one sequence a prompt; otherwise none.
    pub sources: Vec<Vec<u32>>,
    /// The most ids that are added to each.
    pub max_tokens: usize,
    /// Ids that end a sequence; they are not part of the result.
    pub stop: Vec<u32>,
    /// The way to choose an id.
    pub strategy: Strategy,
    /// Makes ids less likely that a sequence has already, its prompt included: a logit is divided by it if it is
    /// positive, else multiplied (Keskar et al., 2019). 1 changes nothing.
    pub repetition_penalty: f32,
}

impl Request {
    /// Greedy, without stop ids.
    pub fn new(prompts: Vec<Vec<u32>>, max_tokens: usize) -> Self {
        Request {
            prompts,
            sources: Vec::new(),
            max_tokens,
            stop: Vec::new(),
            strategy: Strategy::Greedy,
            repetition_penalty: 1.0,
        }
    }
}

/// A way to choose an id from the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// The likeliest; of equals the first. Found on the device: only ids are read back.
    Greedy,
    /// Drawn by [`distribution`](super::distribution).
    Sample {
        /// Logits are divided by it; > 0.
        temperature: f32,
        /// Only the k likeliest.
        top_k: Option<usize>,
        /// Only the likeliest whose probabilities first sum up to p, in (0, 1] (Holtzman et al., 2020).
        top_p: Option<f32>,
        /// The same seed gives the same ids, on one adapter. Each prompt has its own stream, by its number.
        seed: u64,
    },
    /// Beam search: the `beams` likeliest sequences are kept side by side. Each needs an item of the generator.
    Beam {
        /// The number of sequences.
        beams: usize,
        /// α: finished sequences are compared by their log-probability over lengthᵅ, the stop id counted. 0 compares
        /// probabilities, more favours the longer.
        length_penalty: f32,
    },
}

/// An id, as soon as it is known. Beams are only known at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The number of the prompt.
    pub item: usize,
    /// The number of the id among those added to it.
    pub index: usize,
    /// The id.
    pub id: u32,
}

/// The reason why a sequence has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This stop id was chosen.
    Stop(u32),
    /// It has as many ids as were asked for.
    MaxTokens,
    /// The caller broke off.
    Cancelled,
}

/// The continuation of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// The ids, without the prompt and the stop id.
    pub ids: Vec<u32>,
    /// The reason why there are no more.
    pub end: End,
    /// The log-probability of ids and stop id, by [`Strategy::Beam`].
    pub log_probability: Option<f64>,
}

/// The result of a request to a [`Generator`](super::Generator).
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// One for each prompt, in their order.
    pub sequences: Vec<Sequence>,
    /// Runs of the one-token program.
    pub steps: usize,
    /// Ids that those runs gave to all sequences together, stop ids among them.
    pub step_tokens: usize,
    /// The time that it took. Without the feature `native` there is no clock.
    pub time: Option<Time>,
}

/// Wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Until the first ids were known: the source, if there is one, and the prompts.
    pub to_first_token: Duration,
    /// For all after them.
    pub steps: Duration,
}

impl Generated {
    /// Ids a second while decoding, of all sequences together; `None` without a step or a clock.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.time?.steps.as_secs_f64();
        (self.steps > 0 && seconds > 0.0).then(|| self.step_tokens as f64 / seconds)
    }
}
