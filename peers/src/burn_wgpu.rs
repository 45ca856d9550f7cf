//! burn on wgpu, with autotune and fusion.

use burn::tensor::{Device, Tensor, TensorData, activation, module, ops::AttentionModuleOptions};

use crate::{
    case::{Case, Op},
    peer::{Peer, Result, Runner, version},
};

pub struct BurnWgpu {
    device: Device,
    /// The adapter's name, as wgpu has it.
    pub adapter: String,
    driver: String,
}

impl BurnWgpu {
    /// On the adapter that burn takes by itself.
    pub fn open() -> Result<Self> {
        let (device, setup) = Device::wgpu_options().init_with_setup()?;
        let info = setup.adapter.get_info();
        let driver = format!("{} {}", info.driver, info.driver_info).trim().to_string();
        Ok(BurnWgpu { device, adapter: info.name, driver })
    }
}

struct Run<const D: usize> {
    device: Device,
    bytes: usize,
    compute: Box<dyn Fn() -> Tensor<D>>,
}

impl Peer for BurnWgpu {
    fn name(&self) -> String {
        format!("burn {} wgpu", version("burn"))
    }

    fn device(&self) -> String {
        format!("{} ({})", self.adapter, self.driver)
    }

    fn load(&self, case: &Case, operands: &[Vec<f32>]) -> Result<Option<Box<dyn Runner>>> {
        let shapes = case.op.shapes();
        let data = |i: usize| TensorData::new(operands[i].clone(), shapes[i].clone());
        let (device, bytes) = (&self.device, case.op.output_bytes());
        fn boxed<const D: usize>(
            device: &Device,
            bytes: usize,
            compute: impl Fn() -> Tensor<D> + 'static,
        ) -> Result<Option<Box<dyn Runner>>> {
            Ok(Some(Box::new(Run { device: device.clone(), bytes, compute: Box::new(compute) })))
        }
        match case.op {
            Op::Matmul { .. } => {
                let (a, b) = (Tensor::<3>::from_data(data(0), device), Tensor::<3>::from_data(data(1), device));
                boxed(device, bytes, move || a.clone().matmul(b.clone()))
            }
            Op::Attention { causal, .. } => {
                let [q, k, v] = [0, 1, 2].map(|i| Tensor::<4>::from_data(data(i), device));
                boxed(device, bytes, move || {
                    let options = AttentionModuleOptions { scale: None, softcap: None, is_causal: causal };
                    module::attention(q.clone(), k.clone(), v.clone(), None, None, options)
                })
            }
            Op::LayerNorm { .. } => {
                let x = Tensor::<2>::from_data(data(0), device);
                let [gamma, beta] = [1, 2].map(|i| Tensor::<1>::from_data(data(i), device));
                boxed(device, bytes, move || module::layer_norm(x.clone(), gamma.clone(), Some(beta.clone()), 1e-5))
            }
            Op::Softmax { .. } => {
                let x = Tensor::<2>::from_data(data(0), device);
                boxed(device, bytes, move || activation::softmax(x.clone(), 1))
            }
        }
    }
}

/// Results that are kept until all are computed: burn's fusion leaves out what nobody holds.
const KEPT_BYTES: usize = 512 << 20;

impl<const D: usize> Runner for Run<D> {
    fn run(&mut self, times: usize) -> Result<()> {
        let most = (KEPT_BYTES / self.bytes.max(1)).max(1);
        let mut left = times;
        while left > 0 {
            let count = left.min(most);
            let kept: Vec<_> = (0..count).map(|_| (self.compute)()).collect();
            self.device.sync().map_err(|error| format!("{error:?}"))?;
            drop(kept);
            left -= count;
        }
        Ok(())
    }

    fn output(&mut self) -> Result<Vec<f32>> {
        let data = (self.compute)().try_into_data().map_err(|error| format!("{error:?}"))?;
        data.try_to_vec::<f32>().map_err(|error| format!("{error:?}").into())
    }
}
