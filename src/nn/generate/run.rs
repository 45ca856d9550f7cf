//! A request, from prompts to sequences.

use std::ops::ControlFlow;

use super::{
    Autoregressive, End, Generated, Generator, Request, Sequence, Strategy, Time, Token,
    beam::{Beams, Next, Rules},
    program::{Kind, Readback, bucket},
    sample::{Sampler, penalize},
};
use crate::{Data, Error, Result, Tensor, gpu::Wait};

/// What a step says of one item.
enum Row {
    /// The likeliest id, and its logit.
    Id(u32, f32),
    Logits(Vec<f32>),
}

/// The tokens of a step, for each item: `tokens` places, of which the first ones are real.
struct Batch {
    tokens: usize,
    ids: Vec<i32>,
    starts: Vec<i32>,
    lengths: Vec<usize>,
}

/// The clock of a run, where there is one.
struct Clock {
    #[cfg(feature = "native")]
    started: std::time::Instant,
}

impl Clock {
    fn start() -> Self {
        Clock {
            #[cfg(feature = "native")]
            started: std::time::Instant::now(),
        }
    }

    fn elapsed(&self) -> Option<std::time::Duration> {
        #[cfg(feature = "native")]
        return Some(self.started.elapsed());
        #[cfg(not(feature = "native"))]
        None
    }
}

impl<M: Autoregressive> Generator<M> {
    /// Answers a request. `on_token` is called with each token as soon as it is known, and can break off.
    ///
    /// ```
    /// # use std::{collections::BTreeMap, ops::ControlFlow};
    /// # use tilewise::{Result, Tensor, gpu::Gpu, nn::{Gpt, generate::{self, Capacity, Generator, Request}}};
    /// # let model = Gpt::gpt2(50, 32, 16, 1, 4);
    /// # let zeros = |(name, (dtype, shape))| Ok((name, Tensor::zeros(dtype, shape)?));
    /// # let weights = generate::parameters(&model)?.into_iter().map(zeros).collect::<Result<BTreeMap<_, _>>>()?;
    /// # pollster::block_on(async {
    /// # let gpu = Gpu::new_async().await?;
    /// # let capacity = Capacity { chunks: vec![4], ..Capacity::items(1) };
    /// let mut generator = Generator::new_async(&gpu, model, &weights, capacity).await?;
    /// let request = Request::new(vec![vec![3, 14, 15]], 2);
    /// let mut said = Vec::new();
    /// let generated = generator.generate_async(&request, &mut |token| {
    ///     said.push(token.id);
    ///     ControlFlow::Continue(())
    /// }).await?;
    /// assert_eq!(generated.sequences[0].ids, said);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`Error::Op`] before anything runs if there are no prompts or an empty one, ids outside the vocabulary, more
    ///   sequences than there is room for, more tokens than the model has positions or the cache places, or if an
    ///   option is out of range;
    /// - [`Error::Op`] that names the step and the item if logits are NaN or +∞, or all of them −∞: nothing follows from them;
    /// - as [`Generator::prepare_async`].
    pub async fn generate_async(
        &mut self,
        request: &Request,
        on_token: &mut dyn FnMut(Token) -> ControlFlow<()>,
    ) -> Result<Generated> {
        self.run(request, on_token, Wait::Wake).await
    }

    /// [`Generator::generate_async`] without a callback, blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{Result, Tensor, gpu::Gpu, nn::{Gpt, generate::{self, Capacity, Generator, Request}}};
    /// # let model = Gpt::gpt2(50, 32, 16, 1, 4);
    /// # let zeros = |(name, (dtype, shape))| Ok((name, Tensor::zeros(dtype, shape)?));
    /// # let weights = generate::parameters(&model)?.into_iter().map(zeros).collect::<Result<BTreeMap<_, _>>>()?;
    /// # let capacity = Capacity { chunks: vec![4], ..Capacity::items(2) };
    /// let mut generator = Generator::new(&Gpu::new()?, model, &weights, capacity)?;
    /// let generated = generator.generate(&Request::new(vec![vec![3, 14, 15], vec![9]], 2))?;
    /// assert_eq!(generated.sequences[1].ids, [0, 0]); // of equal logits the first, and these weights are all 0
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Generator::generate_async`].
    #[cfg(feature = "native")]
    pub fn generate(&mut self, request: &Request) -> Result<Generated> {
        self.generate_streaming(request, |_| ControlFlow::Continue(()))
    }

    /// [`Generator::generate_async`], blocking.
    ///
    /// ```
    /// # use std::{collections::BTreeMap, ops::ControlFlow};
    /// # use tilewise::{Result, Tensor, gpu::Gpu, nn::{Gpt, generate::{self, Capacity, Generator, Request}}};
    /// # let model = Gpt::gpt2(50, 32, 16, 1, 4);
    /// # let zeros = |(name, (dtype, shape))| Ok((name, Tensor::zeros(dtype, shape)?));
    /// # let weights = generate::parameters(&model)?.into_iter().map(zeros).collect::<Result<BTreeMap<_, _>>>()?;
    /// # let capacity = Capacity { chunks: vec![4], ..Capacity::items(1) };
    /// let mut generator = Generator::new(&Gpu::new()?, model, &weights, capacity)?;
    /// let two = |token: generate::Token| {
    ///     if token.index < 1 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    /// };
    /// let generated = generator.generate_streaming(&Request::new(vec![vec![3, 14, 15]], 20), two)?;
    /// assert_eq!(generated.sequences[0].ids, [0, 0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Generator::generate_async`].
    #[cfg(feature = "native")]
    pub fn generate_streaming(
        &mut self,
        request: &Request,
        mut on_token: impl FnMut(Token) -> ControlFlow<()>,
    ) -> Result<Generated> {
        pollster::block_on(self.run(request, &mut on_token, Wait::Block))
    }

    async fn run(
        &mut self,
        request: &Request,
        on_token: &mut dyn FnMut(Token) -> ControlFlow<()>,
        wait: Wait,
    ) -> Result<Generated> {
        self.check(request)?;
        let clock = Clock::start();
        // Beams of one prompt lie side by side.
        let beams = beams(request.strategy);
        let prompts: Vec<&[u32]> =
            request.prompts.iter().flat_map(|p| std::iter::repeat_n(p.as_slice(), beams)).collect();
        let sources: Vec<&[u32]> =
            request.sources.iter().flat_map(|s| std::iter::repeat_n(s.as_slice(), beams)).collect();
        let source_lengths = self.remember(&sources, wait).await?;
        let mut run = Run { source_lengths, readback: Readback::of(request), wait, steps: 0, step_tokens: 0 };
        let rows = self.prefill(&run, &prompts).await?;
        let first = clock.elapsed();
        let sequences = match request.strategy {
            Strategy::Beam { beams, length_penalty } => {
                self.search(&mut run, request, beams, length_penalty, rows, on_token).await?
            }
            Strategy::Greedy | Strategy::Sample { .. } => self.grow(&mut run, request, rows, on_token).await?,
        };
        let time = first.zip(clock.elapsed()).map(|(first, all)| Time { to_first_token: first, steps: all - first });
        Ok(Generated { sequences, steps: run.steps, step_tokens: run.step_tokens, time })
    }

    /// Each sequence by itself, one token a step.
    async fn grow(
        &mut self,
        run: &mut Run,
        request: &Request,
        mut rows: Vec<Row>,
        on_token: &mut dyn FnMut(Token) -> ControlFlow<()>,
    ) -> Result<Vec<Sequence>> {
        let count = request.prompts.len();
        let mut ids: Vec<Vec<u32>> = vec![Vec::new(); count];
        let mut ends: Vec<Option<End>> = vec![None; count];
        let mut samplers: Vec<Sampler> = (0..count).map(|item| Sampler::new(request.strategy, item)).collect();
        'all: loop {
            for (item, row) in rows.iter_mut().enumerate().take(count) {
                if ends[item].is_some() {
                    continue;
                }
                row.check(run.steps, || format!("item {item}"))?;
                let id = match row {
                    Row::Id(id, _) => *id,
                    Row::Logits(logits) => {
                        let seen = request.prompts[item].iter().chain(&ids[item]).copied();
                        penalize(logits, request.repetition_penalty, seen);
                        samplers[item].choose(logits)
                    }
                };
                run.step_tokens += usize::from(run.steps > 0);
                if request.stop.contains(&id) {
                    ends[item] = Some(End::Stop(id));
                    continue;
                }
                ids[item].push(id);
                if ids[item].len() == request.max_tokens {
                    ends[item] = Some(End::MaxTokens);
                }
                if on_token(Token { item, index: ids[item].len() - 1, id }).is_break() {
                    break 'all;
                }
            }
            if ends.iter().all(Option::is_some) {
                break;
            }
            let mut batch = self.batch(1);
            for item in (0..count).filter(|&item| ends[item].is_none()) {
                if let Some(&id) = ids[item].last() {
                    batch.put(item, request.prompts[item].len() + ids[item].len() - 1, &[id]);
                }
            }
            rows = self.step(run, &batch).await?;
            run.steps += 1;
        }
        let sequence = |(ids, end): (_, Option<End>)| {
            let end = end.unwrap_or(End::Cancelled);
            Sequence { ids, end, log_probability: None }
        };
        Ok(ids.into_iter().zip(ends).map(sequence).collect())
    }

    /// The beams of each prompt side by side.
    async fn search(
        &mut self,
        run: &mut Run,
        request: &Request,
        beams: usize,
        length_penalty: f32,
        mut rows: Vec<Row>,
        on_token: &mut dyn FnMut(Token) -> ControlFlow<()>,
    ) -> Result<Vec<Sequence>> {
        let count = request.prompts.len();
        let mut searches: Vec<Beams> =
            (0..count).map(|_| Beams::new(beams, length_penalty, request.max_tokens)).collect();
        loop {
            let mut batch = self.batch(1);
            let mut parents: Vec<i32> = (0..self.plan.items as i32).collect();
            for (prompt, search) in searches.iter_mut().enumerate().filter(|(_, search)| !search.done()) {
                let first = prompt * beams;
                for (beam, row) in rows[first..].iter().enumerate().take(search.live()) {
                    row.check(run.steps, || format!("item {prompt}, beam {beam}"))?;
                }
                let mut logits: Vec<Vec<f32>> = rows[first..first + beams].iter_mut().map(Row::take_logits).collect();
                let rules = Rules {
                    prompt: &request.prompts[prompt],
                    stop: &request.stop,
                    repetition_penalty: request.repetition_penalty,
                };
                run.step_tokens += usize::from(run.steps > 0);
                let position = rules.prompt.len() + search.length();
                for (beam, Next { parent, id }) in search.advance(&mut logits, &rules).into_iter().enumerate() {
                    parents[first + beam] = (first + parent) as i32;
                    batch.put(first + beam, position, &[id]);
                }
            }
            if searches.iter().all(Beams::done) {
                break;
            }
            if parents.iter().enumerate().any(|(item, &parent)| parent != item as i32) {
                let parents = Tensor::new([self.plan.items], parents)?;
                let inputs = [("parents", &parents)];
                self.program(Kind::Reorder).await?.run_with(&inputs, run.wait).await?;
            }
            rows = self.step(run, &batch).await?;
            run.steps += 1;
        }
        let sequences: Vec<Sequence> = searches.into_iter().map(Beams::into_best).collect();
        for (item, sequence) in sequences.iter().enumerate() {
            for (index, &id) in sequence.ids.iter().enumerate() {
                if on_token(Token { item, index, id }).is_break() {
                    return Ok(sequences);
                }
            }
        }
        Ok(sequences)
    }

    /// Encodes the sources, if there are any, and returns their lengths, one an item.
    async fn remember(&mut self, sources: &[&[u32]], wait: Wait) -> Result<Option<Tensor>> {
        let Some(longest) = sources.iter().map(|source| source.len()).max() else { return Ok(None) };
        let tokens = bucket(&self.plan.sources, longest);
        let items = self.plan.items;
        let (mut ids, mut lengths) = (vec![0i32; items * tokens], vec![0i32; items]);
        for (item, source) in sources.iter().enumerate() {
            for (to, &id) in ids[item * tokens..].iter_mut().zip(*source) {
                *to = id as i32;
            }
            lengths[item] = source.len() as i32;
        }
        let (ids, lengths) = (Tensor::new([items, tokens], ids)?, Tensor::new([items], lengths)?);
        let inputs = [("ids", &ids), ("source lengths", &lengths)];
        self.program(Kind::Remember { tokens }).await?.run_with(&inputs, wait).await?;
        Ok(Some(lengths))
    }

    /// Takes the prompts, chunk by chunk, and returns what comes after each.
    async fn prefill(&mut self, run: &Run, prompts: &[&[u32]]) -> Result<Vec<Row>> {
        let mut taken = vec![0; prompts.len()];
        let mut rows: Vec<Option<Row>> = prompts.iter().map(|_| None).collect();
        loop {
            let rest = prompts.iter().zip(&taken).map(|(prompt, &taken)| prompt.len() - taken).max().unwrap_or(0);
            if rest == 0 {
                break;
            }
            let mut batch = self.batch(bucket(&self.plan.chunks, rest));
            for (item, prompt) in prompts.iter().enumerate() {
                let piece = &prompt[taken[item]..];
                batch.put(item, taken[item], &piece[..piece.len().min(batch.tokens)]);
            }
            for (item, row) in self.step(run, &batch).await?.into_iter().enumerate().take(prompts.len()) {
                taken[item] += batch.lengths[item];
                if batch.lengths[item] > 0 {
                    rows[item] = Some(row);
                }
            }
        }
        Ok(rows.into_iter().map(|row| row.unwrap_or(Row::Id(0, 0.0))).collect())
    }

    fn batch(&self, tokens: usize) -> Batch {
        let items = self.plan.items;
        Batch { tokens, ids: vec![0; items * tokens], starts: vec![0; items], lengths: vec![0; items] }
    }

    async fn step(&mut self, run: &Run, batch: &Batch) -> Result<Vec<Row>> {
        let (items, vocabulary) = (self.plan.items, self.model.vocabulary());
        let ids = Tensor::new([items, batch.tokens], batch.ids.clone())?;
        let starts = Tensor::new([items], batch.starts.clone())?;
        let lasts = batch.lengths.iter().map(|&length| length.saturating_sub(1) as i32).collect::<Vec<_>>();
        let lasts = Tensor::new([items], lasts)?;
        let mut inputs = vec![("ids", &ids), ("starts", &starts)];
        inputs.extend((batch.tokens > 1).then_some(("lasts", &lasts)));
        inputs.extend(run.source_lengths.as_ref().map(|lengths| ("source lengths", lengths)));
        let kind = Kind::Step { tokens: batch.tokens, readback: run.readback };
        let mut outputs = self.program(kind).await?.run_with(&inputs, run.wait).await?;
        match ["next", "logit"].map(|name| outputs.remove(name).map(Tensor::into_data)) {
            [Some(Data::I32(ids)), Some(Data::F32(logits))] => {
                Ok(ids.into_iter().zip(logits).map(|(id, logit)| Row::Id(id as u32, logit)).collect())
            }
            [Some(Data::F32(logits)), None] => {
                Ok(logits.chunks(vocabulary).map(|row| Row::Logits(row.to_vec())).collect())
            }
            _ => Err(Error::op("generate", "a step gave neither ids nor logits in f32")),
        }
    }

    fn check(&self, request: &Request) -> Result<()> {
        let fail = |message: String| Err(Error::op("generate", message));
        let Request { prompts, sources, max_tokens, stop, strategy, repetition_penalty } = request;
        if prompts.is_empty() {
            return fail("no prompts were given, expected at least one".into());
        }
        let beams = beams(*strategy);
        if prompts.len().saturating_mul(beams) > self.plan.items {
            return fail(format!(
                "{} prompts with {beams} beams each don't fit the {} items that the generator has room for",
                prompts.len(),
                self.plan.items
            ));
        }
        if *max_tokens == 0 {
            return fail("max_tokens is 0, expected at least 1".into());
        }
        let positions = if self.plan.circular { self.model.positions() } else { self.plan.places };
        let vocabulary = self.model.vocabulary();
        for (i, prompt) in prompts.iter().enumerate() {
            check_ids(&format!("prompt {i}"), prompt, vocabulary)?;
            // The last id is not looked at again.
            if (prompt.len() - 1).saturating_add(*max_tokens) > positions {
                return fail(format!(
                    "prompt {i} has {} ids and {max_tokens} more are asked for, the model and its cache have room for \
                     {positions}: shorten the prompt or ask for fewer",
                    prompt.len()
                ));
            }
        }
        match self.model.source() {
            None if !sources.is_empty() => return fail("sources were given to a model that reads none".into()),
            None => {}
            Some(_) if sources.len() != prompts.len() => {
                return fail(format!("{} sources were given for {} prompts", sources.len(), prompts.len()));
            }
            Some(source) => {
                for (i, ids) in sources.iter().enumerate() {
                    check_ids(&format!("source {i}"), ids, source.vocabulary)?;
                    if ids.len() > source.positions {
                        return fail(format!(
                            "source {i} has {} ids, the model has {} positions for it: shorten it",
                            ids.len(),
                            source.positions
                        ));
                    }
                }
            }
        }
        if let Some(id) = stop.iter().find(|&&id| id as usize >= vocabulary) {
            return fail(format!("stop id {id} is not in the vocabulary of {vocabulary}"));
        }
        let positive = |name: &str, x: f32| {
            if x.is_finite() && x > 0.0 { Ok(()) } else { fail(format!("{name} is {x}, expected a number above 0")) }
        };
        positive("repetition_penalty", *repetition_penalty)?;
        match *strategy {
            Strategy::Greedy => Ok(()),
            Strategy::Sample { top_k: Some(0), .. } => fail("top_k is 0, expected at least 1, or None for all".into()),
            Strategy::Sample { temperature, top_p, .. } => {
                positive("temperature", temperature)?;
                match top_p {
                    Some(p) if !(p > 0.0 && p <= 1.0) => fail(format!("top_p is {p}, expected above 0 and up to 1")),
                    _ => Ok(()),
                }
            }
            Strategy::Beam { beams: 0, .. } => fail("0 beams were asked for, expected at least 1".into()),
            Strategy::Beam { length_penalty, .. } if !length_penalty.is_finite() => {
                fail(format!("length_penalty is {length_penalty}, expected a finite number"))
            }
            Strategy::Beam { .. } => Ok(()),
        }
    }
}

/// What all steps of a run share, and how many there were.
struct Run {
    source_lengths: Option<Tensor>,
    readback: Readback,
    wait: Wait,
    steps: usize,
    step_tokens: usize,
}

impl Batch {
    /// Real tokens of an item, from a position on.
    fn put(&mut self, item: usize, position: usize, ids: &[u32]) {
        for (to, &id) in self.ids[item * self.tokens..].iter_mut().zip(ids) {
            *to = id as i32;
        }
        (self.starts[item], self.lengths[item]) = (position as i32, ids.len());
    }
}

impl Row {
    fn take_logits(&mut self) -> Vec<f32> {
        match self {
            Row::Logits(logits) => std::mem::take(logits),
            Row::Id(..) => Vec::new(),
        }
    }

    /// An error if the logits say nothing of which token comes next. −∞ is that of a token that never comes, unless all are.
    fn check(&self, step: usize, item: impl Fn() -> String) -> Result<()> {
        let largest = match self {
            Row::Id(_, logit) => *logit,
            Row::Logits(logits) => {
                logits.iter().copied().fold(f32::NEG_INFINITY, |a, b| if a >= b || a.is_nan() { a } else { b })
            }
        };
        if largest.is_finite() {
            return Ok(());
        }
        let of_step = if step == 0 { "after the prompt (step 0)".into() } else { format!("of step {step}") };
        let message = format!(
            "the logits {of_step} of {} are not finite: the largest is {largest}, expected a number. A weight or a value on the \
             way to them is NaN or infinite, or too large for its dtype; `tilewise run --check` compares with the reference",
            item()
        );
        Err(Error::op("generate", message))
    }
}

fn beams(strategy: Strategy) -> usize {
    match strategy {
        Strategy::Beam { beams, .. } => beams,
        Strategy::Greedy | Strategy::Sample { .. } => 1,
    }
}

fn check_ids(what: &str, ids: &[u32], vocabulary: usize) -> Result<()> {
    if ids.is_empty() {
        return Err(Error::op(
            "generate",
            format!("{what} is empty, expected at least one id (a start id, for instance)"),
        ));
    }
    match ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocabulary) {
        Some((at, id)) => Err(Error::op(
            "generate",
            format!("{what}: id {id} at place {at} is not in the vocabulary of {vocabulary}"),
        )),
        None => Ok(()),
    }
}
