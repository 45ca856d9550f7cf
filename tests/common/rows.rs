//! What the tests of the families that reduce rows share: numbers, views, and runs of every variant.

use tilewise::{
    DType, Data, Layout, Shape, Tensor,
    gpu::Gpu,
    kernel::{AdapterKind, Candidate, Kernel, Problem, Profile, Verdict},
};

/// Numbers that look random and are the same each time (Marsaglia's xorshift64).
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Draw(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 20) as usize % n
    }

    /// In (−1, 1).
    pub(crate) fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// In `−most … most`.
    pub(crate) fn integer(&mut self, most: i32) -> i32 {
        self.below(2 * most as usize + 1) as i32 - most
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub(crate) fn integers(&mut self, n: usize, most: i32) -> Vec<f32> {
        (0..n).map(|_| self.integer(most) as f32).collect()
    }
}

/// An operand: a buffer, and where in it the elements lie.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) buffer: Tensor,
    pub(crate) layout: Layout,
}

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    Dense,
    /// Dense, three elements behind the start.
    Offset,
    /// Every other element of a longer last axis.
    Gaps,
    /// The last axis of the buffer is the first.
    Turned,
    /// Every axis is walked backwards.
    Backwards,
    /// Aligned rows with eight elements between them, behind eight others.
    Rows,
    /// Rows aligned to eight elements, behind four others.
    Fours,
}

impl Lie {
    pub(crate) const ALL: [Lie; 7] =
        [Lie::Dense, Lie::Offset, Lie::Gaps, Lie::Turned, Lie::Backwards, Lie::Rows, Lie::Fours];
}

impl View {
    /// An operand of this shape; `data` gives as many elements as the buffer takes.
    pub(crate) fn new(shape: &[usize], lie: Lie, mut data: impl FnMut(usize) -> Data) -> Self {
        let rank = shape.len();
        let last = shape.last().copied().unwrap_or(1);
        let rows: usize = shape[..rank.saturating_sub(1)].iter().product();
        let dense = Layout::contiguous(shape);
        let elements = rows * last;
        let (buffer, layout) = match lie {
            Lie::Dense => (elements, dense),
            Lie::Offset => (elements + 3, Layout { offset: 3, ..dense }),
            Lie::Gaps => {
                let strides = dense.strides.iter().map(|stride| 2 * stride).collect();
                (2 * elements, Layout { strides, ..dense })
            }
            Lie::Turned if rank > 0 => {
                let turned: Vec<usize> = [last].into_iter().chain(shape[..rank - 1].iter().copied()).collect();
                let order: Vec<usize> = (1..rank).chain([0]).collect();
                (elements, Layout::contiguous(turned).permute(&order))
            }
            Lie::Turned => (elements, dense),
            Lie::Backwards => {
                let ends: Vec<usize> = shape.iter().map(|size| size.saturating_sub(1)).collect();
                (elements, dense.slice(&ends, &vec![-1; rank], &shape.into()))
            }
            Lie::Rows | Lie::Fours => {
                let (pitch, offset) = match lie {
                    Lie::Rows => (last.next_multiple_of(4) + 8, 8),
                    _ => (last.next_multiple_of(8), 4),
                };
                let mut wide = shape.to_vec();
                wide[rank - 1] = pitch;
                let strides = Layout::contiguous(wide).strides;
                (rows * pitch + offset, Layout { shape: shape.into(), strides, offset })
            }
        };
        View { buffer: Tensor::new([buffer], data(buffer)).expect("as many as asked for"), layout }
    }

    /// The same operand with its f32 rounded to another float.
    pub(crate) fn stored(mut self, dtype: DType) -> Self {
        let all = self.buffer.as_f32().expect("f32").iter();
        let data = match dtype {
            DType::F16 => Data::F16(all.map(|&x| half::f16::from_f32(x)).collect()),
            DType::BF16 => Data::BF16(all.map(|&x| half::bf16::from_f32(x)).collect()),
            _ => return self,
        };
        self.buffer = Tensor::new(self.buffer.shape(), data).expect("as many");
        self
    }

    /// The elements, dense.
    pub(crate) fn read(&self) -> Tensor {
        let mut places = vec![self.layout.offset as isize];
        for (&size, &stride) in self.layout.shape.iter().zip(&self.layout.strides) {
            places = places.iter().flat_map(|&place| (0..size as isize).map(move |i| place + i * stride)).collect();
        }
        macro_rules! pick {
            ($($variant:ident),*) => {
                match self.buffer.data() {
                    $(Data::$variant(data) => Data::$variant(places.iter().map(|&i| data[i as usize]).collect()),)*
                }
            };
        }
        Tensor::new(&self.layout.shape, pick!(F32, F16, BF16, I32, U32, Bool)).expect("one for each place")
    }
}

/// The tile shapes for this adapter, and those that a GPU would get.
pub(crate) fn profiles(gpu: &Gpu) -> Vec<Profile> {
    [AdapterKind::Cpu, AdapterKind::Gpu].map(|kind| Profile { kind, ..gpu.profile().clone() }).into()
}

/// Runs every variant that this device can run, for each profile, and hands on its name and outputs.
///
/// # Panics
/// If the kernel fails, if no variant can run, or if one is refused for another reason than what the device lacks or how
/// long it lets loops be.
pub(crate) fn run_all(
    gpu: &Gpu,
    problem: &dyn Problem,
    inputs: &[&Tensor],
    outputs: &[(DType, Shape)],
    mut each: impl FnMut(&str, &[Tensor]),
) {
    let candidates = problem.candidates(gpu.profile());
    assert!(candidates[0].is_usable(), "{}: no variant can run", problem.summary());
    for Candidate { variant, verdict } in candidates {
        if let Verdict::Refused(reason) = verdict {
            let lacking = variant == "subgroup" && gpu.profile().subgroup.is_none_or(|(least, most)| least != most);
            let too_long = gpu.profile().loop_rounds().is_some() && reason.contains("rounds");
            assert!(lacking || too_long, "{} {variant} was refused: {reason}", problem.summary());
            eprintln!("{} {variant}: not on this device: {reason}", problem.summary());
            continue;
        }
        for profile in profiles(gpu) {
            let name = format!("{} {variant} for a {:?}", problem.summary(), profile.kind);
            let run = problem.kernel(variant, &profile).and_then(|kernel| gpu.run_kernel(&kernel, inputs, outputs));
            match run {
                Ok(tensors) => each(&name, &tensors),
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
}

/// A kernel that works in place, after a launch that copies what it needs there.
pub(crate) fn after_copy(mut kernel: Kernel, input: usize, elements: usize) -> Kernel {
    use tilewise::kernel::{Binding, Launch, Operand, Source};
    const COPY: &str = "
        struct Params { n: u32 }
        @group(0) @binding(0) var<uniform> p: Params;
        @group(0) @binding(1) var<storage, read> a: array<u32>;
        @group(0) @binding(2) var<storage, read_write> b: array<u32>;
        @compute @workgroup_size(1) fn main() { for (var i = 0u; i < p.n; i++) { b[i] = a[i]; } }";
    let copy = Launch {
        label: "copy".into(),
        source: Source::new("copy", COPY).into(),
        bindings: vec![Binding::read(Operand::Input(input)), Binding::write(Operand::Output(0))],
        params: vec![elements as u32],
        grid: [1, 1, 1],
        flops: 0,
        exponentials: 0,
        bytes: 0,
    };
    kernel.launches.insert(0, copy);
    kernel
}
