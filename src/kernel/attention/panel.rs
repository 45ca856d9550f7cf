//! A panel of keys and values in the registers of a subgroup, and the query rows that walk past it: for adapters that run
//! on a CPU.

use super::{
    parts::Parts,
    setup::{Setup, Tiling},
};
use crate::{
    Result,
    kernel::{Binding, Kernel, Launch, Specialization},
};

/// How many keys a panel may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Usual,
    /// Nearly twice as many: O is read and written half as often, and it takes three times as long to compile.
    Deep,
}

impl Depth {
    /// Multiplications of scores and of sums in the shader's text, at most: a driver compiles as long as the text is, 3 to
    /// 5 ms for each with LLVM 15.
    fn most_products(self) -> usize {
        match self {
            Depth::Usual => 600,
            Depth::Deep => 1100,
        }
    }
}

/// Operations that are worth compiling a deep panel: some milliseconds of a software adapter.
const MANY_FLOPS: u64 = 1 << 25;
/// Those of one key of each lane, at most; above that, workgroups share the columns of v.
const MOST_PRODUCTS_OF_KEYS: usize = 400;
/// Keys of a panel, over the subgroup's size, at most; and from so many keys on twice as many: O is read and written half as
/// often, and it takes twice as long to compile.
const MOST_C: usize = 4;
const MANY_KEYS: usize = 128;
/// Most rows of a tile, as in the shader, and how few are taken to give every processor some.
const MOST_ROWS: usize = 256;
const LEAST_ROWS: usize = 64;
/// Workgroups that a software adapter shares out among its threads without idling for long.
const BUSY: u64 = 8;
/// Most parts of the keys.
const MOST_SPLITS: usize = 256;

/// The value slots of the shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Invocations of a subgroup.
    lanes: usize,
    /// Keys of a panel, over `lanes`.
    c: usize,
    /// vec4s of a row of q, and of those of a lane.
    d4: usize,
    q4: usize,
    /// vec4s of a row of v of a lane, and workgroups that share the columns.
    dv4: usize,
    column_parts: usize,
}

impl Shape {
    fn of(setup: &Setup<'_>, depth: Depth) -> Result<Self, String> {
        let lanes = match setup.profile.subgroup {
            Some((least, most)) if least == most => least as usize,
            Some((least, most)) => {
                return Err(format!("subgroups have from {least} to {most} invocations, not one size"));
            }
            None => return Err("the device has no subgroup operations".into()),
        };
        if !(4..=64).contains(&lanes) || !lanes.is_power_of_two() {
            return Err(format!("a subgroup has {lanes} invocations; the kernel is written for 4, 8, 16, 32 or 64"));
        }
        if setup.sizes.d == 0 || setup.sizes.dv == 0 {
            return Err("a head without columns leaves nothing to hold".into());
        }
        let d4 = setup.sizes.d.div_ceil(4);
        let products = |dv4: usize| 4 * d4 + 4 * dv4 * lanes;
        let all = setup.sizes.dv.div_ceil(4 * lanes);
        let fits = |&parts: &usize| products(all.div_ceil(parts)) <= MOST_PRODUCTS_OF_KEYS;
        let column_parts = (1..all).find(fits).unwrap_or(all);
        let dv4 = all.div_ceil(column_parts);
        let most = if setup.sizes.keys < MANY_KEYS { MOST_C } else { 2 * MOST_C };
        let c = (depth.most_products() / products(dv4)).clamp(1, most);
        Ok(Shape { lanes, c, d4, q4: d4.div_ceil(lanes), dv4, column_parts })
    }

    /// Keys of a panel.
    fn block(self) -> usize {
        self.c * self.lanes
    }

    /// Rounds of loops that a tile of so many rows takes for each panel, and once; see
    /// [`Profile::loop_rounds`](crate::kernel::Profile::loop_rounds).
    fn rounds(self, rows: usize) -> [usize; 2] {
        // Columns of k four by four, and their copy; rows of v; rows of q in groups, which need not begin with a panel.
        let panel = 1 + (1 + 6 * self.d4) + (1 + self.block()) + 1 + 2 * (rows / self.lanes + 2) + rows;
        [panel, rows + 2 * (rows / self.lanes) + 64]
    }

    /// The most keys that a tile of so many rows can walk over.
    fn most_keys(self, rows: usize, setup: &Setup<'_>) -> usize {
        let [panel, once] = self.rounds(rows);
        let rounds = setup.profile.loop_rounds().map_or(usize::MAX, |most| most as usize);
        (rounds.saturating_sub(once) / panel).saturating_mul(self.block())
    }

    /// Rows of a tile: many, as each loads its keys; fewer if processors would idle, or if loops would be ended.
    fn tiling(self, setup: &Setup<'_>) -> Result<Tiling, String> {
        let tiling = |rows: usize| {
            let span = if setup.sizes.rows < rows { setup.sizes.group().max(1) } else { 1 };
            Tiling { column_parts: self.column_parts, ..Tiling::of(rows, span) }
        };
        let mut rows = MOST_ROWS;
        while rows > LEAST_ROWS && setup.workgroups(tiling(rows)) < BUSY {
            rows /= 2;
        }
        let keys = setup.sizes.keys;
        while rows > LEAST_ROWS && self.most_keys(rows, setup) < keys {
            rows /= 2;
        }
        let most = self.most_keys(rows, setup);
        let splits = keys.div_ceil(most.max(1)).max(1);
        if splits > MOST_SPLITS {
            return Err(format!("{keys} keys take {splits} parts, at most {MOST_SPLITS} are made"));
        }
        Ok(Tiling { splits, ..tiling(rows) })
    }
}

pub(super) fn refusal(setup: &Setup<'_>, depth: Depth) -> Option<String> {
    if depth == Depth::Deep {
        if setup.flops() < MANY_FLOPS {
            return Some(format!("{} operations are not worth its compiling", setup.flops()));
        }
        if Shape::of(setup, depth).is_ok_and(|deep| Shape::of(setup, Depth::Usual) == Ok(deep)) {
            return Some("panel holds as many keys".into());
        }
    }
    let tiling = match Shape::of(setup, depth).and_then(|shape| shape.tiling(setup)) {
        Ok(tiling) => tiling,
        Err(reason) => return Some(reason),
    };
    (tiling.splits > 1).then(|| Parts::new(setup, tiling).refusal(setup)).flatten()
}

pub(super) fn kernel(setup: &Setup<'_>, depth: Depth) -> Result<Kernel> {
    let refused = |reason| crate::Error::NoVariant { family: "attention", reasons: vec![format!("panel: {reason}")] };
    let shape = Shape::of(setup, depth).map_err(refused)?;
    let tiling = shape.tiling(setup).map_err(refused)?;
    let mut kernel = setup.begin()?;
    let source = source(setup, shape).region("SPANS", tiling.span > 1);
    let launch = |label: String, source: Specialization, outputs: Vec<Binding>, bytes: u64| {
        Ok::<Launch, crate::Error>(Launch {
            label,
            source: source.source()?,
            bindings: setup.inputs().into_iter().chain(outputs).collect(),
            params: setup.params(tiling),
            grid: setup.grid(tiling)?,
            flops: setup.flops(),
            bytes: setup.bytes() + bytes,
        })
    };
    if tiling.splits > 1 {
        let parts = Parts::new(setup, tiling);
        let to = parts.place(&mut kernel);
        let label = format!("panel: {} parts", tiling.splits);
        kernel.launches.push(launch(label, source.region("SPLIT", true), vec![Binding::write(to)], parts.bytes)?);
        parts.merge(setup, &mut kernel, to)?;
    } else {
        let out = setup.wide_out(&mut kernel);
        let source = setup.reads_out(setup.writes_four(source, out)).region("LSE", setup.problem.lse);
        kernel.launches.push(launch("panel".into(), source, setup.outputs(out), 0)?);
        setup.finish(&mut kernel, out)?;
    }
    Ok(kernel)
}

fn source(setup: &Setup<'_>, shape: Shape) -> Specialization {
    let source = setup
        .specialize("attention_panel", include_str!("../../../shaders/attention_panel.wgsl"))
        .value("LANES", shape.lanes)
        .value("HALVINGS", shape.lanes.ilog2())
        .value("C", shape.c)
        .value("D4", shape.d4)
        .value("DN", 4 * shape.dv4)
        .value("Q4", shape.q4)
        .value("DV4", shape.dv4)
        .value("COLUMN_PARTS", shape.column_parts);
    let source = setup.reads_one(source, "bias");
    let problem = setup.problem;
    [("q", &problem.q), ("k", &problem.k), ("v", &problem.v)]
        .into_iter()
        .fold(source, |source, (name, layout)| setup.reads_four(source, name, layout))
}
