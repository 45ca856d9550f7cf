use anyhow::{Result, bail};
use tilewise::{
    DType, Graph, Tensor,
    gpu::{Executable, Gpu},
    nn::{self, Bert, Pooling, Uploaded},
};

use super::{
    batch::{Batch, Room},
    recipe::Recipe,
    tokens::Tokens,
};
use crate::args::PoolingMode;

/// The model on a device.
pub(super) struct Encoder<'a> {
    gpu: Gpu,
    bert: &'a Bert,
    recipe: &'a Recipe,
    weights: Uploaded,
    /// The last program and the sizes that it is for.
    loaded: Option<(Room, Executable)>,
}

/// ids i32 `[ΣT]`, types i32 `[ΣT]`, offsets i32 `[B + 1]` → for each mode a tensor `[B, E]`, named by its place.
pub(super) fn graph(bert: &Bert, recipe: &Recipe, room: Room) -> tilewise::Result<Graph> {
    let mut g = Graph::new();
    let ids = g.input("ids", DType::I32, [room.tokens])?;
    let types = g.input("types", DType::I32, [room.tokens])?;
    let offsets = g.input("offsets", DType::I32, [room.texts + 1])?;
    let hidden = bert.build_packed(&mut g, "", ids, Some(types), offsets)?.hidden;
    let padded = nn::unpack(&mut g, hidden, offsets, room.longest)?;
    let begins = g.slice(offsets, 0, 0, room.texts)?;
    let ends = g.slice(offsets, 0, 1, room.texts + 1)?;
    let lengths = g.sub(ends, begins)?;
    let real = nn::key_mask(&mut g, lengths, room.longest)?;
    for (i, mode) in recipe.pooling.iter().enumerate() {
        let pooling = match mode {
            PoolingMode::Cls => Pooling::First,
            PoolingMode::Max => Pooling::Max,
            // The host knows the root of a text's length, by which they differ.
            PoolingMode::Mean | PoolingMode::MeanSqrtLenTokens => Pooling::Mean,
        };
        let pooled = nn::pool(&mut g, padded, real, pooling)?;
        g.output(i.to_string(), pooled)?;
    }
    Ok(g)
}

impl<'a> Encoder<'a> {
    /// With weights that lie on this device.
    pub(super) fn new(gpu: Gpu, bert: &'a Bert, recipe: &'a Recipe, weights: Uploaded) -> Self {
        Encoder { gpu, bert, recipe, weights, loaded: None }
    }

    /// The vector of each of the batch's texts.
    pub(super) fn run(&mut self, batch: &Batch, tokens: &[Tokens]) -> Result<Vec<Vec<f32>>> {
        let room = batch.room;
        let program = match self.loaded.take() {
            Some((sizes, program)) if sizes == room => program,
            // The old program's buffers go before the new one's come.
            _ => self.gpu.compile(&graph(self.bert, self.recipe, room)?, self.weights.parameters())?,
        };
        let (_, program) = self.loaded.insert((room, program));

        let (mut ids, mut types, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
        for &text in &batch.texts {
            ids.extend_from_slice(&tokens[text].ids);
            types.extend_from_slice(&tokens[text].types);
            offsets.push(ids.len() as i32);
        }
        // Tokens and texts that only fill the room belong to nobody.
        offsets.resize(room.texts + 1, ids.len() as i32);
        ids.resize(room.tokens, 0);
        types.resize(room.tokens, 0);
        let [ids, types, offsets] = [ids, types, offsets].map(|data| Tensor::new([data.len()], data));
        let outputs = program.run(&[("ids", &ids?), ("types", &types?), ("offsets", &offsets?)])?;

        let width = self.bert.width;
        let mut vectors = Vec::with_capacity(batch.texts.len());
        for (row, &text) in batch.texts.iter().enumerate() {
            let mut vector = Vec::with_capacity(width * self.recipe.pooling.len());
            for (i, mode) in self.recipe.pooling.iter().enumerate() {
                let pooled = outputs[&i.to_string()].as_f32().unwrap_or_default();
                let scale = match mode {
                    PoolingMode::MeanSqrtLenTokens => (tokens[text].ids.len() as f32).sqrt(),
                    PoolingMode::Cls | PoolingMode::Max | PoolingMode::Mean => 1.0,
                };
                vector.extend(pooled[row * width..][..width].iter().map(|x| x * scale));
            }
            if vector.iter().any(|x| !x.is_finite()) {
                bail!("text {}: its vector is not finite: are the weights whole?", text + 1);
            }
            if self.recipe.normalize {
                normalize(&mut vector);
            }
            vectors.push(vector);
        }
        Ok(vectors)
    }
}

/// `x / max(‖x‖, 1e-12)`, as `torch.nn.functional.normalize`.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(1e-12);
    for x in vector {
        *x = (f64::from(*x) / length) as f32;
    }
}
