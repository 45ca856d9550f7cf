//! Small hand-made programs.

use std::sync::Arc;

use tilewise::{
    DType, Shape, Tensor,
    kernel::{Binding, Kernel, Launch, Operand, Source, buffer_bytes},
    lower::{Buffer, BufferId, Program, Role, Step},
};

/// `y[i] = factor · x[i]`.
pub(crate) const SCALE: &str = "
struct Params { n: u32, factor: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.n { y[id.x] = p.factor * x[id.x]; }
}";

/// `c[i] = a[i] + b[i]`.
pub(crate) const ADD: &str = "
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.n { c[id.x] = a[id.x] + b[id.x]; }
}";

/// `x[i] = x[i] + 1`, in place.
pub(crate) const INCREMENT: &str = "
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.n { x[id.x] = x[id.x] + 1.0; }
}";

/// One dispatch that reads the inputs and writes output 0.
pub(crate) fn kernel(wgsl: &str, inputs: usize, params: &[u32], workgroups: u32) -> Kernel {
    let mut bindings: Vec<Binding> = (0..inputs).map(|i| Binding::read(Operand::Input(i))).collect();
    bindings.push(Binding::write(Operand::Output(0)));
    let launch = Launch {
        label: "main".into(),
        source: Arc::new(Source::new("test", wgsl)),
        bindings,
        params: params.to_vec(),
        grid: [workgroups, 1, 1],
        flops: 1,
        exponentials: 0,
        bytes: 2,
    };
    Kernel { launches: vec![launch], workspace: Vec::new() }
}

pub(crate) fn scale(n: usize, factor: f32) -> Kernel {
    kernel(SCALE, 1, &[n as u32, factor.to_bits()], n.div_ceil(64) as u32)
}

pub(crate) fn add(n: usize) -> Kernel {
    kernel(ADD, 2, &[n as u32], n.div_ceil(64) as u32)
}

pub(crate) fn vector(values: impl IntoIterator<Item = f32>) -> Tensor {
    let values: Vec<f32> = values.into_iter().collect();
    Tensor::new([values.len()], values).expect("a vector")
}

/// Builds a program step by step.
pub(crate) struct Builder(pub(crate) Program);

impl Builder {
    pub(crate) fn new() -> Self {
        Builder(Program {
            buffers: Vec::new(),
            allocations: Vec::new(),
            steps: Vec::new(),
            submissions: Vec::new(),
            notes: Vec::new(),
            unfused_bytes: 0,
        })
    }

    pub(crate) fn buffer(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>, role: Role) -> BufferId {
        let shape = shape.into();
        let bytes = buffer_bytes(dtype, shape.elements().expect("small"));
        self.0.buffers.push(Buffer { name: name.into(), dtype, shape, bytes, role });
        BufferId(self.0.buffers.len() - 1)
    }

    pub(crate) fn input(&mut self, name: &str, n: usize) -> BufferId {
        self.buffer(name, DType::F32, [n], Role::Input(name.into()))
    }

    pub(crate) fn output(&mut self, name: &str, n: usize) -> BufferId {
        self.buffer(name, DType::F32, [n], Role::Output(name.into()))
    }

    /// A temporary in an allocation of its own.
    pub(crate) fn temporary(&mut self, name: &str, n: usize) -> BufferId {
        self.0.allocations.push(buffer_bytes(DType::F32, n));
        self.buffer(name, DType::F32, [n], Role::Temporary(self.0.allocations.len() - 1))
    }

    pub(crate) fn step(&mut self, kernel: Kernel, inputs: &[BufferId], output: BufferId) -> &mut Step {
        self.0.steps.push(Step {
            key: String::new(),
            family: "test",
            variant: "plain",
            reason: String::new(),
            candidates: Vec::new(),
            summary: format!("number {}", self.0.steps.len()),
            covers: Vec::new(),
            kernel,
            inputs: inputs.to_vec(),
            outputs: vec![output],
            workspace: Vec::new(),
            in_place: None,
        });
        self.0.steps.last_mut().expect("just added")
    }
}

/// `t = 2x, u = t + w, y = u + 100, z = 5u`, with the parameter `w`.
pub(crate) fn sample(n: usize) -> Program {
    let mut b = Builder::new();
    let x = b.input("x", n);
    let w = b.buffer("w", DType::F32, [n], Role::Parameter("w".into()));
    let c = b.buffer("hundred", DType::F32, [n], Role::Constant(vector((0..n).map(|_| 100.0))));
    let (t, u) = (b.temporary("t", n), b.temporary("u", n));
    let (y, z) = (b.output("y", n), b.output("z", n));
    b.step(scale(n, 2.0), &[x], t);
    b.step(add(n), &[t, w], u);
    b.step(add(n), &[u, c], y);
    b.step(scale(n, 5.0), &[u], z);
    b.0
}

/// What [`sample`] gives.
pub(crate) fn sample_outputs(x: &Tensor, w: &Tensor) -> [Tensor; 2] {
    let values = |t: &Tensor| t.as_f32().expect("f32").to_vec();
    let u: Vec<f32> = values(x).iter().zip(values(w)).map(|(x, w)| 2.0 * x + w).collect();
    [vector(u.iter().map(|u| u + 100.0)), vector(u.iter().map(|u| 5.0 * u))]
}
