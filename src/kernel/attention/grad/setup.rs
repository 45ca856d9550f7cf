//! A problem on a device, and what its launches share.

use super::problem::AttentionGradProblem;
use crate::{
    Error, Result,
    graph::{AttentionOperand as A, BiasGrad},
    kernel::{
        Binding, Kernel, Launch, Operand, Parameters, Profile, Specialization,
        access::elems::Elems,
        attention::{
            sequences,
            setup::{Beside, Setup as Attention, Tiling, distinct, placed},
            storage::Float,
        },
        fold_grid,
        variant::{self, Needs},
    },
};

/// A problem, checked, on a device.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) problem: &'a AttentionGradProblem,
    pub(super) attention: Attention<'a>,
    bias: Option<BiasGrad>,
}

/// What a launch goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Rows of q, so many a workgroup: dq, and what is summed over keys.
    Rows(usize),
    /// Rows of k and v, so many a workgroup: dk and dv, and what is summed over queries.
    Keys(usize),
    /// The elements of a bias, so many a workgroup.
    Elements(usize),
}

/// The results, in the order of the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gradient {
    Q,
    K,
    V,
    Bias,
    Slopes,
}

/// What a launch writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    region: Region,
    operand: Operand,
}

impl Output {
    /// Whether it is a number of each query row.
    pub(super) fn is_sum_of_row(&self) -> bool {
        matches!(self.region, Region::BiasRows | Region::Slopes)
    }
}

/// Where in the kernels an output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    Q,
    K,
    V,
    /// Sums over the keys of each row, and over the queries of each key.
    BiasRows,
    BiasKeys,
    Elements,
    Slopes,
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = AttentionGradProblem::FAMILY;

    fn profile(&self) -> &Profile {
        self.attention.profile
    }
}

impl<'a> Setup<'a> {
    pub(super) fn new(problem: &'a AttentionGradProblem, profile: &'a Profile) -> Result<Self> {
        const OP: &str = AttentionGradProblem::FAMILY;
        let options = &problem.attention.options;
        if options.is_paged() || !options.score_mods.is_empty() {
            return Err(Error::op(OP, "neither pages nor score functions have a gradient"));
        }
        let mut attention = Attention::new(&problem.attention, profile)?;
        let statistics = Operand::Input(4 + options.operands.len());
        attention.beside = Some(Beside { input: statistics, words: 2 * attention.all_rows() });
        let out = problem.attention.out_shape();
        if problem.dout.shape != *out {
            return Err(Error::shape(OP, "dout", &problem.dout.shape, format!("{out}, that of out")));
        }
        let bias = problem.attention.operand(A::Bias).map(|bias| BiasGrad::of(&attention.sizes, &bias.shape));
        Ok(Setup { problem, attention, bias })
    }

    fn wants(&self, gradient: Gradient) -> bool {
        self.problem.wanted[gradient as usize]
    }

    /// The number of an output; those that are not asked for are left out.
    fn output(&self, gradient: Gradient) -> Option<Operand> {
        let before = self.problem.wanted[..gradient as usize].iter().filter(|wanted| **wanted).count();
        self.wants(gradient).then_some(Operand::Output(before))
    }

    /// The outputs of a pass, in the order of the shader.
    fn outputs(&self, pass: Pass) -> Vec<Output> {
        let bias = match self.bias {
            Some(BiasGrad::Rows) => Some(Region::BiasRows),
            Some(BiasGrad::Keys { .. }) => Some(Region::BiasKeys),
            Some(BiasGrad::Elements { .. }) => Some(Region::Elements),
            None => None,
        };
        let regions: &[Region] = match pass {
            Pass::Rows(_) => &[Region::Q, Region::BiasRows, Region::Slopes],
            Pass::Keys(_) => &[Region::K, Region::V, Region::BiasKeys],
            Pass::Elements(_) => &[Region::Elements],
        };
        let output = |&region: &Region| {
            let operand = match region {
                Region::Q => self.output(Gradient::Q),
                Region::K => self.output(Gradient::K),
                Region::V => self.output(Gradient::V),
                Region::Slopes => self.output(Gradient::Slopes),
                Region::BiasRows | Region::BiasKeys | Region::Elements => {
                    self.output(Gradient::Bias).filter(|_| bias == Some(region))
                }
            };
            operand.map(|operand| Output { region, operand })
        };
        regions.iter().filter_map(output).collect()
    }

    /// Whether a pass has anything to do.
    pub(super) fn has(&self, pass: Pass) -> bool {
        !self.outputs(pass).is_empty()
    }

    /// The outputs of a pass by launches, of which each has so many buffers of its own: one, unless the device has too few buffers.
    pub(super) fn launches_of(&self, pass: Pass, own: usize) -> Vec<Vec<Output>> {
        let room = (self.attention.profile.limits.storage_buffers as usize).saturating_sub(self.read() + own);
        self.outputs(pass).chunks(room.max(1)).map(<[Output]>::to_vec).collect()
    }

    /// Buffers that every launch reads: the operands and dout. The statistics lie with the records.
    fn read(&self) -> usize {
        self.attention.inputs(None).len() + 1
    }

    /// The launches before the others: records, numbers of heads and the statistics in one buffer, if there are several of these.
    pub(super) fn begin(&self) -> Result<Kernel> {
        let attention = &self.attention;
        let mut kernel = sequences::begin(attention)?;
        let Some(beside) = attention.beside.filter(|_| attention.gathers()) else { return Ok(kernel) };
        let workgroup = attention.profile.plain_workgroup();
        let source = Specialization::new("attention_grad::beside").value("WORKGROUP", workgroup).source()?;
        let parameters = Parameters::new().set("count", beside.words).set("at", attention.gathered());
        let workgroups = (beside.words as u64).div_ceil(workgroup.into());
        kernel.launches.push(Launch {
            label: "statistics".into(),
            params: source.words(&parameters)?,
            source,
            bindings: vec![Binding::read(beside.input), Binding::write(Operand::Workspace(0))],
            grid: fold_grid(workgroups, attention.profile, AttentionGradProblem::FAMILY)?,
            flops: 0,
            exponentials: 0,
            bytes: 8 * beside.words as u64,
        });
        Ok(kernel)
    }

    /// What every variant needs whose launches have so many buffers of their own.
    pub(super) fn needs(&self, own: usize) -> Result<Needs, String> {
        let needs = self.attention.needs(0)?;
        Ok(Needs { buffers: (self.read() + own + 1) as u64, ..needs })
    }

    /// The regions and bindings that all kernels have.
    pub(super) fn specialize(&self, kernel: &'static str, outputs: &[Output]) -> Specialization {
        let source = self.attention.specialize(kernel).region("LSE", true).region("GRADIENT", true);
        let source = self.attention.reads_one(source, Float::Bias);
        let sizes = &self.attention.sizes;
        outputs.iter().fold(source, |source, output| match output.region {
            // Its kernel has no other output.
            Region::Elements => source,
            Region::Q => writes_rows(source.region("DQ", true), "dq", sizes.d),
            Region::K => writes_rows(source.region("DK", true), "dk", sizes.d),
            Region::V => writes_rows(source.region("DV", true), "dv", sizes.dv),
            Region::BiasRows => source.region("BIAS_ROWS", true),
            Region::BiasKeys => source.region("BIAS_KEYS", true),
            Region::Slopes => source.region("DSLOPES", true),
        })
    }

    /// Workgroups of a pass.
    pub(super) fn workgroups(&self, pass: Pass) -> u64 {
        let sizes = &self.attention.sizes;
        match pass {
            Pass::Rows(rows) => self.attention.workgroups(Tiling::of(rows, 1)),
            Pass::Keys(rows) => (sizes.batch * sizes.kv_heads * sizes.keys.div_ceil(rows)) as u64,
            Pass::Elements(each) => self.elements().div_ceil(each) as u64,
        }
    }

    /// Items, heads and columns of the gradient of a bias that has an element for each query and key.
    fn bias_axes(&self) -> [usize; 3] {
        let sizes = &self.attention.sizes;
        match self.bias {
            Some(BiasGrad::Elements { items, heads, columns }) => [items, heads, columns],
            Some(BiasGrad::Keys { columns }) => [sizes.batch, sizes.heads, columns],
            Some(BiasGrad::Rows) | None => [sizes.batch, sizes.heads, sizes.keys],
        }
    }

    /// Items and heads that share an element of a bias.
    pub(super) fn shared(&self) -> [usize; 2] {
        let [items, heads, _] = self.bias_axes();
        [self.attention.sizes.batch / items.max(1), self.attention.sizes.heads / heads.max(1)]
    }

    fn elements(&self) -> usize {
        let [items, heads, columns] = self.bias_axes();
        items * heads * self.attention.sizes.rows * columns
    }

    /// A launch that goes through all of a pass.
    pub(super) fn launch(
        &self,
        label: &str,
        source: Specialization,
        pass: Pass,
        outputs: &[Output],
        beside: Option<Binding>,
    ) -> Result<Launch> {
        let attention = &self.attention;
        let source = source.source()?;
        let [d, dv] = [attention.sizes.d, attention.sizes.dv].map(|width| width as u64);
        let products = outputs.iter().map(|output| match output.region {
            Region::Q => d,
            Region::K => d,
            Region::V => dv,
            Region::BiasRows | Region::BiasKeys | Region::Elements | Region::Slopes => 0,
        });
        // Those of the weights, which dv needs alone, and those of dS.
        let only_values = outputs.iter().all(|output| output.region == Region::V);
        let products = d + if only_values { 0 } else { dv } + products.sum::<u64>();
        let written: u64 = outputs.iter().map(|output| self.written(output.region)).sum();
        let elements = distinct(&self.problem.dout) + 2 * attention.all_rows() as u64 + written;
        let workgroups = self.workgroups(pass);
        Ok(Launch {
            label: label.into(),
            params: source.words(&self.parameters(pass))?,
            source,
            bindings: self.bindings(outputs, beside),
            grid: fold_grid(workgroups, attention.profile, AttentionGradProblem::FAMILY)?,
            flops: attention.exponentials().saturating_mul(2 * products),
            exponentials: attention.exponentials(),
            bytes: attention.read_bytes() + AttentionGradProblem::DTYPE.bytes() as u64 * elements,
        })
    }

    /// A launch of few workgroups that looks for what another has left to do, with parameters and a buffer of its own.
    pub(super) fn launch_after(
        &self,
        source: Specialization,
        pass: Pass,
        outputs: &[Output],
        own: Parameters,
        beside: Binding,
        workgroups: u64,
    ) -> Result<Launch> {
        let source = source.source()?;
        Ok(Launch {
            label: "odd rows".into(),
            params: source.words(&self.parameters(pass).and(own))?,
            source,
            bindings: self.bindings(outputs, Some(beside)),
            grid: fold_grid(workgroups, self.attention.profile, AttentionGradProblem::FAMILY)?,
            flops: 0,
            exponentials: 0,
            bytes: 4 * self.workgroups(pass),
        })
    }

    /// The operands of the attention, dout after them, the outputs, and what a kernel has beside.
    fn bindings(&self, outputs: &[Output], beside: Option<Binding>) -> Vec<Binding> {
        let dout = Operand::Input(3 + self.problem.attention.options.operands.len());
        let read = self.attention.inputs(None).into_iter().chain([Binding::read(dout)]);
        read.chain(outputs.iter().map(|output| Binding::write(output.operand))).chain(beside).collect()
    }

    fn parameters(&self, pass: Pass) -> Parameters {
        let Setup { problem, attention, .. } = self;
        let sizes = &attention.sizes;
        let (rows, tile_keys) = match pass {
            Pass::Rows(rows) => (rows, 1),
            Pass::Keys(rows) => (1, rows),
            Pass::Elements(_) => (1, 1),
        };
        let [_, heads, columns] = self.bias_axes();
        let [shared_items, shared_heads] = self.shared();
        let [kv_b, kv_h, kv_t] =
            if sizes.packed { [0, 1, sizes.kv_heads] } else { [sizes.kv_heads * sizes.keys, sizes.keys, 1] };
        let steps = attention.strides(&problem.dout);
        attention
            .parameters_of(self.workgroups(pass), Tiling::of(rows, 1), None)
            .and(placed(["dout_offset", "dout_b", "dout_h", "dout_t", "dout_d"], &problem.dout, steps))
            .set("statistics_at", if attention.gathers() { attention.gathered() } else { 0 })
            .set("kv_b", kv_b)
            .set("kv_h", kv_h)
            .set("kv_t", kv_t)
            .set("keys", sizes.keys)
            .set("tile_keys", tile_keys)
            .set("key_tiles", sizes.keys.div_ceil(tile_keys))
            .set("bias_columns", columns)
            .set("bias_heads", heads)
            .set("bias_elements", self.elements())
            .set("shared_items", shared_items)
            .set("shared_heads", shared_heads)
    }

    /// Elements of an output.
    fn written(&self, region: Region) -> u64 {
        let sizes = &self.attention.sizes;
        let keys = sizes.batch * sizes.kv_heads * sizes.keys;
        (match region {
            Region::Q => self.attention.all_rows() * sizes.d,
            Region::K => keys * sizes.d,
            Region::V => keys * sizes.dv,
            Region::BiasKeys => sizes.batch * sizes.heads * sizes.keys,
            Region::Elements => self.elements(),
            Region::BiasRows | Region::Slopes => self.attention.all_rows(),
        }) as u64
    }

    /// `dout_four`, which reads four elements of a row, and its type.
    pub(super) fn reads_dout(&self, source: Specialization) -> Specialization {
        if !self.attention.lies_in_groups(&self.problem.dout, AttentionGradProblem::DTYPE, 4) {
            return source;
        }
        source.ty("dout_elem", "vec4<f32>").function(
            "dout_four",
            "fn dout_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> { return dout[(row + d.x) >> 2u]; }",
        )
    }
}

/// How rows of a result are written: whole vec4s, where they consist of such.
fn writes_rows(source: Specialization, name: &str, width: usize) -> Specialization {
    if !width.is_multiple_of(4) {
        return source;
    }
    let elems = Elems { dtype: AttentionGradProblem::DTYPE, packed: true };
    let parameter = if name == "dv" { "p.dv" } else { "p.d" };
    let write = elems.write_at(name, &format!("(row * {parameter} + d) >> 2u"), "four");
    source.ty(&format!("{name}_elem"), elems.ty()).function(
        &format!("write_{name}"),
        format!("fn write_{name}(row: u32, d: u32, four: vec4<f32>) {{ if d < {parameter} {{ {write} }} }}"),
    )
}
