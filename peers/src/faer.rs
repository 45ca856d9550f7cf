//! faer's matmul, on the processor.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

use crate::{
    case::{Case, Op},
    cores,
    peer::{Operands, Peer, Result, Runner, version},
};

pub struct Faer;

/// Products of row-major matrices, one for each item of the batch.
struct Run {
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

    fn load(&self, case: &Case, mut operands: Operands) -> Result<Option<Box<dyn Runner>>> {
        let Op::Matmul { batch, m, n, k } = case.op else { return Ok(None) };
        let (a, b, y) = (operands.take("a")?.values, operands.take("b")?.values, vec![0.0; batch * m * n]);
        Ok(Some(Box::new(Run { sizes: [m, n, k], a, b, y })))
    }
}

impl Runner for Run {
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
