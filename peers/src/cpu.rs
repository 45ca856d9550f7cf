//! Libraries that run on the processor itself: candle, and faer's matmul.

use candle_core::{D, Device, Tensor};
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

use crate::{
    case::{Case, Op},
    peer::{Peer, Result, Runner, version},
};

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub struct Candle;

struct CandleRun(Box<dyn Fn() -> candle_core::Result<Tensor>>);

impl Peer for Candle {
    fn name(&self) -> String {
        format!("candle {} CPU", version("candle-core"))
    }

    fn device(&self) -> String {
        format!("{} threads", cores())
    }

    fn load(&self, case: &Case, operands: &[Vec<f32>]) -> Result<Option<Box<dyn Runner>>> {
        let tensor = |(shape, values): (Vec<usize>, &Vec<f32>)| Tensor::from_vec(values.clone(), shape, &Device::Cpu);
        let x = case.op.shapes().into_iter().zip(operands).map(tensor).collect::<candle_core::Result<Vec<_>>>()?;
        let compute: Box<dyn Fn() -> candle_core::Result<Tensor>> = match case.op {
            Op::Matmul { .. } => Box::new(move || x[0].matmul(&x[1])),
            Op::Attention { rows, keys, width, causal, .. } => {
                // candle has no fused attention for the processor.
                let scale = 1.0 / (width as f64).sqrt();
                let hidden: Vec<f32> = (0..rows * keys)
                    .map(|at| if causal && at % keys > at / keys { f32::NEG_INFINITY } else { 0.0 })
                    .collect();
                let hidden = causal.then(|| Tensor::from_vec(hidden, (rows, keys), &Device::Cpu)).transpose()?;
                Box::new(move || {
                    let mut scores = (x[0].matmul(&x[1].t()?)? * scale)?;
                    if let Some(hidden) = &hidden {
                        scores = scores.broadcast_add(hidden)?;
                    }
                    candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&x[2])
                })
            }
            Op::LayerNorm { .. } => Box::new(move || candle_nn::ops::layer_norm(&x[0], &x[1], &x[2], 1e-5)),
            Op::Softmax { .. } => Box::new(move || candle_nn::ops::softmax_last_dim(&x[0])),
        };
        Ok(Some(Box::new(CandleRun(compute))))
    }
}

impl Runner for CandleRun {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            std::hint::black_box((self.0)()?);
        }
        Ok(())
    }

    fn output(&mut self) -> Result<Vec<f32>> {
        Ok((self.0)()?.flatten_all()?.to_vec1()?)
    }
}

pub struct Faer;

/// Products of row-major matrices, one for each item of the batch.
struct FaerRun {
    sizes: [usize; 3],
    a: Vec<f32>,
    b: Vec<f32>,
    y: Vec<f32>,
}

impl Peer for Faer {
    fn name(&self) -> String {
        format!("faer {} CPU", version("faer"))
    }

    fn device(&self) -> String {
        format!("{} threads", cores())
    }

    fn load(&self, case: &Case, operands: &[Vec<f32>]) -> Result<Option<Box<dyn Runner>>> {
        let Op::Matmul { batch, m, n, k } = case.op else { return Ok(None) };
        let (a, b, y) = (operands[0].clone(), operands[1].clone(), vec![0.0; batch * m * n]);
        Ok(Some(Box::new(FaerRun { sizes: [m, n, k], a, b, y })))
    }
}

impl Runner for FaerRun {
    fn run(&mut self, times: usize) -> Result<()> {
        let [m, n, k] = self.sizes;
        for _ in 0..times {
            let items = self.y.chunks_exact_mut(m * n).zip(self.a.chunks_exact(m * k)).zip(self.b.chunks_exact(k * n));
            for ((y, a), b) in items {
                let (a, b) = (MatRef::from_row_major_slice(a, m, k), MatRef::from_row_major_slice(b, k, n));
                matmul(MatMut::from_row_major_slice_mut(y, m, n), Accum::Replace, a, b, 1.0, Par::rayon(0));
            }
            std::hint::black_box(&mut self.y);
        }
        Ok(())
    }

    fn output(&mut self) -> Result<Vec<f32>> {
        self.run(1)?;
        Ok(self.y.clone())
    }
}
