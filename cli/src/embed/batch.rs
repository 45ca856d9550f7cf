use tilewise::kernel::AdapterKind;

/// A batch has at most one text for so many tokens of its budget. What goes from tokens to texts takes memory by their product,
/// so thousands of empty texts at once would cost more than they gain.
const TOKENS_A_TEXT: usize = 8;

/// Texts that run together: sequences end to end, without padding between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Indices of the texts, longest first.
    pub(super) texts: Vec<usize>,
    pub(super) room: Room,
}

/// The sizes of a program that runs a batch: its own, rounded up, so that few programs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Tokens of all texts.
    pub(super) tokens: usize,
    /// Texts.
    pub(super) texts: usize,
    /// Tokens of the longest text.
    pub(super) longest: usize,
}

/// Tokens of a batch, if nobody says. A few hundred rows keep the cores of a software adapter busy (lavapipe, 256 short texts: 27
/// texts a second with 512, 21 with 2048, 16 with 4096); a GPU wants thousands.
pub(super) fn budget(kind: AdapterKind) -> usize {
    match kind {
        AdapterKind::Cpu => 512,
        AdapterKind::Gpu => 4096,
    }
}

impl Room {
    pub(super) fn of(texts: usize, tokens: usize, longest: usize) -> Self {
        // At most one part in eight is more than is needed.
        let step = (tokens.next_power_of_two() / 16).max(8);
        Room {
            tokens: tokens.next_multiple_of(step),
            texts: texts.next_power_of_two(),
            longest: longest.next_multiple_of(16),
        }
    }
}

/// Batches of at most `budget` tokens, the longest texts first: what doesn't fit a device fails at once. A text longer than the
/// budget is a batch of its own.
pub(super) fn batches(lengths: &[usize], budget: usize) -> Vec<Batch> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(lengths[text]));
    let mut batches = Vec::new();
    let mut texts = Vec::new();
    let mut tokens = 0;
    for text in order {
        let full = texts.len() >= budget / TOKENS_A_TEXT || tokens + lengths[text] > budget;
        if full && !texts.is_empty() {
            batches.push(finish(std::mem::take(&mut texts), tokens, lengths));
            tokens = 0;
        }
        texts.push(text);
        tokens += lengths[text];
    }
    if !texts.is_empty() {
        batches.push(finish(texts, tokens, lengths));
    }
    batches
}

fn finish(texts: Vec<usize>, tokens: usize, lengths: &[usize]) -> Batch {
    let longest = lengths[texts[0]];
    Batch { room: Room::of(texts.len(), tokens, longest), texts }
}

#[cfg(test)]
mod tests {
    use super::batches;

    #[test]
    fn every_text_is_in_one_batch_that_holds_it() {
        let lengths: Vec<usize> = (0..200).map(|i| 1 + (i * 37) % 61).chain([500, 2]).collect();
        for budget in [1, 61, 64, 300, 100_000] {
            let batches = batches(&lengths, budget);
            let mut seen: Vec<usize> = batches.iter().flat_map(|batch| batch.texts.clone()).collect();
            let order: Vec<usize> = seen.iter().map(|&text| lengths[text]).collect();
            assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
            seen.sort_unstable();
            assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                let tokens: usize = batch.texts.iter().map(|&text| lengths[text]).sum();
                assert!(tokens <= budget || batch.texts.len() == 1, "{tokens} of {budget}");
                assert!(batch.texts.len() <= (budget / 8).max(1), "{} texts of {budget}", batch.texts.len());
                assert!(batch.texts.iter().all(|&text| lengths[text] <= batch.room.longest));
                assert!(batch.room.texts >= batch.texts.len() && batch.room.texts < 2 * batch.texts.len());
                let most = (tokens + tokens / 8).max(tokens + 7);
                assert!((tokens..=most).contains(&batch.room.tokens), "{tokens}: {}", batch.room.tokens);
            }
        }
    }

    #[test]
    fn like_batches_share_their_sizes() {
        let lengths: Vec<usize> = (0..4096).map(|i| 20 + i % 3).collect();
        let mut rooms: Vec<_> = batches(&lengths, 2048).into_iter().map(|batch| batch.room).collect();
        assert!(rooms.len() > 40);
        rooms.dedup();
        assert!(rooms.len() <= 5, "{rooms:?}");
    }

    #[test]
    fn no_texts_are_no_batches() {
        assert!(batches(&[], 10).is_empty());
    }
}
