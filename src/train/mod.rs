//! Floor 7: training. A model of any kind learns: its loss is a value of its graph, and everything else is here.
//!
//! - [`cross_entropy`] is the loss of classes and words; any other single float is one too.
//! - [`initial`] says how parameters begin, [`shift_right`], [`pad`] and [`batches_by_length`] what the model is shown.
//! - [`training_step`] adds gradients ([`grad`](crate::grad)), clipping and an [`Optimizer`] to the graph: a step is **one** program, in
//!   one pass, and parameters are states that never leave the device.
//! - A step may be one over several [micro-batches](Settings::micro_batches). Parameters of f16 and bf16 follow masters in f32, and a
//!   [`LossScale`] keeps their gradients in range.
//! - [`seed`] is what dropouts of the graph draw from; another for each run of the model, and the same bits in a run that was resumed.
//! - [`Trainer`] runs it, waiting for each step or not: schedules, metrics, validation, checkpoints, and a stop where the loss
//!   isn't finite, which names the first value that isn't. The trained buffers go into a
//!   [`Generator`](crate::nn::generate::Generator) without a copy.
//!
//! ```
//! use tilewise::{DType, Graph, Tensor, gpu::Gpu, graph::Reduce, nn::Linear};
//! use tilewise::train::{Adam, Settings, Trainer, initial};
//! // y = 2·x₀ − x₁ is learnt from examples.
//! let mut g = Graph::new();
//! let x = g.input("x", DType::F32, [4, 2])?;
//! let wanted = g.input("wanted", DType::F32, [4, 1])?;
//! let y = Linear::new(2, 1).build(&mut g, "line", x)?;
//! let error = g.sub(y, wanted)?;
//! let squares = g.mul(error, error)?;
//! let loss = g.reduce(Reduce::Mean, squares, &[], false)?;
//!
//! let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, Settings::new(Adam::new(0.1)), &initial(&g, 0, |_, _| None)?)?;
//! let x = Tensor::new([4, 2], vec![0.0f32, 1.0, 1.0, 0.0, 1.0, 1.0, 2.0, 1.0])?;
//! let wanted = Tensor::new([4, 1], vec![-1.0f32, 2.0, 1.0, 3.0])?;
//! for _ in 0..150 {
//!     trainer.step(&[("x", &x), ("wanted", &wanted)])?;
//! }
//! let weight = trainer.parameters()?["line.weight"].to_f64();
//! assert!((weight[0] - 2.0).abs() < 0.1 && (weight[1] + 1.0).abs() < 0.1, "{weight:?}");
//! # Ok::<(), tilewise::Error>(())
//! ```

mod data;
mod initial;
mod loss;
mod masters;
mod names;
mod optimizer;
mod report;
mod scale;
mod schedule;
mod seed;
mod settings;
mod step;
mod trainer;
mod update;
mod uses;

pub use data::{Shifted, batches_by_length, pad, shift_right};
pub use initial::{Init, initial};
pub use loss::{CrossEntropy, Loss, Reduction, cross_entropy, summed_cross_entropy};
pub use optimizer::{Adam, Optimizer, Sgd};
pub use report::Report;
pub use scale::LossScale;
pub use schedule::Schedule;
pub use seed::seed;
pub use settings::Settings;
pub use step::{accumulated_step, training_step};
pub use trainer::{MicroBatch, Trainer};
