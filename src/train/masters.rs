//! Parameters of f16 and bf16, which are rounded from masters in f32.

use std::{borrow::Cow, collections::BTreeMap};

use half::{bf16, f16};

use super::{Settings, names};
use crate::{DType, Data, Graph, Result, Tensor};

/// What parameters begin with, and the masters of those that are trained and narrow. One that is given in f32 is the master itself.
pub(super) fn with<'a>(
    g: &Graph,
    settings: &Settings,
    start: &'a BTreeMap<String, Tensor>,
) -> Result<Cow<'a, BTreeMap<String, Tensor>>> {
    let mut all = Cow::Borrowed(start);
    for (name, value) in g.parameters().filter(|(name, _)| !settings.frozen.iter().any(|frozen| frozen == name)) {
        let Some(given) = start.get(name) else { continue };
        let numbers = || given.to_f64().into_iter().map(|x| x as f32);
        let narrow: Data = match g.dtype(value) {
            DType::F16 => numbers().map(f16::from_f32).collect::<Vec<_>>().into(),
            DType::BF16 => numbers().map(bf16::from_f32).collect::<Vec<_>>().into(),
            DType::F32 | DType::I32 | DType::U32 | DType::Bool => continue,
        };
        // Any other dtype is refused when the program is loaded.
        if given.dtype() == g.dtype(value) || given.dtype() == DType::F32 {
            let master = Tensor::new(given.shape(), numbers().collect::<Vec<f32>>())?;
            let narrow = Tensor::new(given.shape(), narrow)?;
            all.to_mut().extend([(names::master(name), master), (name.to_string(), narrow)]);
        }
    }
    Ok(all)
}
