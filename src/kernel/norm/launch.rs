//! The dispatches of a norm.

use super::{
    super::{
        Binding, Kernel, Launch, Operand, Parameters, Specialization,
        access::{axes::Axis, elems::Elems, strided::touched},
        pointwise::Store,
        rows::{Deal, PACKED_TOTAL, Rows, Stage, Staged},
    },
    problem::{NormKind, NormProblem},
    setup::Setup,
};
use crate::Result;

/// Where the results of a norm are written that have the shape of x.
struct Stores {
    y: Store,
    sum: Option<Store>,
}

impl Staged for Setup<'_> {
    fn rows(&self) -> &Rows {
        &self.merged.rows
    }

    /// Shift, count, mean and squares.
    fn partial_bytes(&self) -> usize {
        16
    }

    fn kernel(&self, stages: &[Stage], workspace: Vec<u64>) -> Result<Kernel> {
        let mut kernel = Kernel { launches: Vec::new(), workspace };
        let elements = self.merged.rows.rows * self.merged.width;
        let mut store = |output, dtype| Store::new(output, dtype, self.packed(), elements, &mut kernel.workspace);
        let y = store(0, self.problem.dtypes.y);
        let stores = Stores { y, sum: self.problem.sum.then(|| store(1, self.problem.dtypes.sum)) };
        for &stage in stages {
            kernel.launches.push(self.launch(&stores, stage)?);
        }
        for store in [Some(stores.y), stores.sum].into_iter().flatten() {
            kernel.launches.extend(store.finish(self.profile)?);
        }
        Ok(kernel)
    }
}

impl Setup<'_> {
    fn packed(&self) -> bool {
        self.merged.rows.pack > 1
    }

    /// The launch of a stage: the shader with the operands that the stage reads and writes.
    fn launch(&self, stores: &Stores, stage: Stage) -> Result<Launch> {
        let Setup { problem, profile, merged } = self;
        let Rows { rows, elems, pack, .. } = merged.rows;
        let shader = match stage {
            Stage::Whole(Deal::Plain(_)) => "norm::plain",
            Stage::Whole(Deal::Workgroup(_)) => "norm::workgroup",
            Stage::Whole(Deal::Subgroup(_)) => "norm::subgroup",
            Stage::Shares(_) => "norm::shares",
            Stage::Apply(_) => "norm::apply",
        };
        let mut shader = stage
            .slots(Specialization::new(shader).on(profile.backend))
            .value("ROW_AXES", merged.leading.len() - 1)
            .value("COL_AXES", merged.trailing.len() - 1)
            .value("PACK", pack)
            .value("RMS", problem.kind == NormKind::Rms);
        if self.packed() {
            shader = shader.ty("elem", "vec4<f32>").function("total", PACKED_TOTAL);
        }

        // Of two stages the first adds x and residual, and the second does the rest: from the sum, if that was not rounded.
        let (first, last) = (stage.is_first(), stage.is_last());
        let adds = first || !problem.sum || problem.dtypes.sum.is_narrow();
        let mut bindings = Vec::new();
        let mut input = 0;
        // Where an operand is read: from its own binding, from that of y, or not at all.
        for ((region, name, given, used, absent), dtype) in [
            ("X", "x", true, adds, "elem()"),
            ("RESIDUAL", "residual", problem.residual.is_some(), adds, "elem()"),
            ("WEIGHT", "weight", problem.weight.is_some(), last, "elem(1.0)"),
            ("BIAS", "bias", problem.bias.is_some(), last, "elem()"),
        ]
        .into_iter()
        .zip(problem.dtypes.inputs())
        {
            let elems = Elems { dtype, packed: self.packed() };
            let shared = given && problem.in_place == Some(input);
            let body = match (given && used, shared) {
                (true, true) => elems.read("y"),
                (true, false) => {
                    shader = elems.slots(shader.region(region, true), &format!("{name}_word"));
                    bindings.push(Binding::read(Operand::Input(input)));
                    elems.read(name)
                }
                (false, _) => format!("return {absent};"),
            };
            shader = shader.function(&format!("read_{name}"), format!("fn read_{name}(i: u32) -> elem {{ {body} }}"));
            input += usize::from(given);
        }
        let mut narrow = false;
        for (name, region, store, used) in
            [("y", "Y", Some(stores.y), last || problem.in_place.is_some()), ("sum", "SUM", stores.sum, first || !adds)]
        {
            let Some(store) = store.filter(|_| used) else { continue };
            let write = format!("fn write_{name}(i: u32, v: elem) {{ {} }}", store.elems.write(name));
            shader = store.elems.slots(shader.region(region, true), &format!("{name}_word"));
            shader = shader.function(&format!("write_{name}"), write);
            bindings.push(Binding::write(store.operand));
            narrow |= store.elems.dtype.is_narrow();
        }
        let mut output = 1 + usize::from(problem.sum);
        for (region, wanted) in [("MEAN", problem.mean), ("RSTD", problem.rstd)] {
            if wanted && last {
                shader = shader.region(region, true);
                bindings.push(Binding::write(Operand::Output(output)));
            }
            output += usize::from(wanted);
        }
        bindings.extend(stage.between());

        let [x, residual, weight, bias] = merged.offsets;
        let parameters = Parameters::new()
            .set("rows", rows)
            .set("width", merged.width)
            .set("elems", elems)
            .and(stage.parameters())
            .set("epsilon", problem.epsilon)
            .set("x", x)
            .set("residual", residual)
            .set("weight", weight)
            .set("bias", bias)
            .and(Axis::parameters(&merged.leading, ["x", "residual"], "row", "r"))
            .and(Axis::parameters(&merged.trailing, ["x", "residual", "weight", "bias"], "col", "c"));
        let source = shader.region("NARROW", narrow).source()?;
        let nothing = merged.width == 0 && !problem.mean && !problem.rstd;
        Ok(Launch {
            label: stage.label(),
            params: source.words(&parameters)?,
            source,
            bindings,
            grid: if nothing { [0; 3] } else { stage.grid(NormProblem::FAMILY, rows, profile)? },
            flops: if last { self.flops() } else { 0 },
            exponentials: 0,
            bytes: if last { self.bytes(stores) } else { self.bytes_of_shares(stores) },
        })
    }

    /// Per element: sum, difference, square and its sum, difference, product (RMS: square, its sum, product).
    fn flops(&self) -> u64 {
        let NormProblem { kind, residual, weight, bias, .. } = self.problem;
        let norm = if *kind == NormKind::Layer { 6 } else { 3 };
        let options = [residual, weight, bias].into_iter().filter(|layout| layout.is_some()).count();
        (self.merged.rows.rows * self.merged.width * (norm + options)) as u64
    }

    /// What reading the first `count` of x, residual, weight and bias takes.
    fn bytes_read(&self, count: usize) -> u64 {
        let NormProblem { x, residual, weight, bias, dtypes, .. } = self.problem;
        let inputs = [Some(x), residual.as_ref(), weight.as_ref(), bias.as_ref()];
        let read = inputs.into_iter().zip(dtypes.inputs()).take(count);
        read.filter_map(|(layout, dtype)| Some(touched(layout?) * dtype.bytes() as u64)).sum()
    }

    /// What a result of the shape of x takes; one that is rounded by a launch of its own is f32 here.
    fn bytes_written(&self, store: Store) -> u64 {
        (self.merged.rows.rows * self.merged.width * store.elems.dtype.bytes()) as u64
    }

    fn bytes(&self, stores: &Stores) -> u64 {
        let statistics =
            4 * self.merged.rows.rows as u64 * (u64::from(self.problem.mean) + u64::from(self.problem.rstd));
        let written: u64 =
            [Some(stores.y), stores.sum].into_iter().flatten().map(|store| self.bytes_written(store)).sum();
        self.bytes_read(4) + written + statistics
    }

    /// What the first stage of the split variant reads for the sums: it all comes once more.
    fn bytes_of_shares(&self, stores: &Stores) -> u64 {
        self.bytes_read(2) + stores.sum.map_or(0, |sum| self.bytes_written(sum))
    }
}
