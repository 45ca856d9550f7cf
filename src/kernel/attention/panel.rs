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
    /// More: O is read and written less often, and it takes up to 5 s to compile.
    Deep,
}

impl Depth {
    /// What the panel's loads may take to compile, in [`Read::weight`]s: 2 s with LLVM 15 for 850. It takes as long as there
    /// are loads in the text, and more than in proportion to them.
    fn most_loads(self) -> usize {
        match self {
            Depth::Usual => 850,
            Depth::Deep => 1200,
        }
    }

    /// Keys of a panel, over the subgroup's size, at most.
    fn most(self) -> usize {
        match self {
            Depth::Usual => 8,
            Depth::Deep => 16,
        }
    }
}

/// Elements of a row that one load reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    One,
    Four,
    Eight,
}

impl Read {
    /// The widest one that an operand allows.
    fn of(setup: &Setup<'_>, name: &str) -> Self {
        // Where compiling is quick, drivers unpack words of 64 bits again for each row of q.
        let widths = if setup.profile.shares_loads() { &[Read::Four][..] } else { &[Read::Eight, Read::Four] };
        widths.iter().copied().find(|&width| setup.has_groups(name, width.elements())).unwrap_or(Read::One)
    }

    fn elements(self) -> usize {
        match self {
            Read::One => 1,
            Read::Four => 4,
            Read::Eight => 8,
        }
    }

    /// What `fours` times four elements take to compile.
    fn weight(self, fours: usize) -> usize {
        match self {
            Read::One => 2 * 4 * fours,
            Read::Four => 5 * fours,
            Read::Eight => 5 * fours.div_ceil(2),
        }
    }
}

/// Operations that are worth compiling a deep panel: some milliseconds of a software adapter.
const MANY_FLOPS: u64 = 1 << 25;
/// What the loads of one key of each lane may take; above that, workgroups share the columns of v.
const MOST_LOADS_OF_KEYS: usize = 425;
/// How many keys a lane may have, most first.
const STEPS: [usize; 7] = [16, 8, 6, 4, 3, 2, 1];
/// From so many keys on a lane may have more than four. There are few such steps, since each is another text to compile.
const MANY_KEYS: usize = 128;
/// Bytes of a panel, at most, which is read once for each row of q: what a processor's first cache holds.
const MOST_BYTES: usize = 64 << 10;
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
    /// vec4s of q side by side in a lane.
    q_run: usize,
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
        // Where a lane would have four columns of q or fewer, a load of eight is none the less.
        let q_run = if d4 > lanes && Read::of(setup, "q") == Read::Eight { 2 } else { 1 };
        let q4 = d4.div_ceil(q_run * lanes) * q_run;
        let all = setup.sizes.dv.div_ceil(4 * lanes);
        let shape =
            |column_parts: usize| Shape { lanes, c: 1, d4, q_run, q4, dv4: all.div_ceil(column_parts), column_parts };
        let loads = |shape: Shape| {
            let [k, v] = ["k", "v"].map(|name| shape.read(setup, name));
            k.weight(d4) + lanes * v.weight(shape.dv4)
        };
        let quick = setup.profile.shares_loads();
        let one = (1..all).map(shape).find(|&shape| quick || loads(shape) <= MOST_LOADS_OF_KEYS).unwrap_or(shape(all));
        let bytes = 16 * lanes * (d4 + lanes * one.dv4);
        let most_loads = if quick { usize::MAX } else { depth.most_loads() };
        let most = match setup.sizes.keys {
            few if few <= 2 * lanes => 2,
            some if some < MANY_KEYS => 4,
            _ => depth.most(),
        };
        let fits = |&c: &usize| c <= most && c * loads(one) <= most_loads && c * bytes <= MOST_BYTES;
        let c = STEPS.into_iter().find(fits).unwrap_or(1);
        Ok(Shape { c, ..one })
    }

    /// How much of q, k, v or `out` a load reads.
    fn read(self, setup: &Setup<'_>, name: &str) -> Read {
        let pays = match name {
            "q" => self.q_run == 2,
            "k" => true,
            "v" => self.dv4 > 1,
            _ => self.dv4.is_multiple_of(2),
        };
        match Read::of(setup, name) {
            Read::Eight if !pays => Read::Four,
            read => read,
        }
    }

    /// Whether products are fused with sums: where the driver does so, and enough sums are at work to hide that they take longer.
    fn fuses(self, setup: &Setup<'_>) -> bool {
        setup.profile.shares_loads() && self.dv4 > 1
    }

    /// Keys of a panel.
    fn block(self) -> usize {
        self.c * self.lanes
    }

    /// Rounds of loops that a tile of so many rows takes for each panel, and once; see
    /// [`Profile::loop_rounds`](crate::kernel::Profile::loop_rounds).
    fn rounds(self, rows: usize) -> [usize; 2] {
        // Rows of q in groups, which need not begin with a panel.
        let panel = 2 + 2 * (rows / self.lanes + 2) + rows;
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
            exponentials: setup.exponentials(),
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
        let source = match shape.read(setup, "out") {
            Read::Eight => setup.keeps_eight(source),
            _ => setup.reads_out(setup.writes_four(source, out)),
        };
        let source = source.region("LSE", setup.problem.lse);
        kernel.launches.push(launch("panel".into(), source, setup.outputs(out), 0)?);
        setup.finish(&mut kernel, out)?;
    }
    Ok(kernel)
}

fn source(setup: &Setup<'_>, shape: Shape) -> Specialization {
    let source = setup
        .specialize("attention::panel")
        .value("LANES", shape.lanes)
        .value("HALVINGS", shape.lanes.ilog2())
        .value("C", shape.c)
        .value("D4", shape.d4)
        .value("D8", shape.d4 / 2)
        .value("DT", shape.d4 % 2)
        .value("Q_RUN", shape.q_run)
        .value("Q4", shape.q4)
        .value("Q8", shape.q4 / 2)
        .value("QT", shape.q4 % 2)
        .value("DV4", shape.dv4)
        .value("DV8", shape.dv4 / 2)
        .value("DVT", shape.dv4 % 2)
        .value("COLUMN_PARTS", shape.column_parts)
        .region("FUSED", shape.fuses(setup));
    let source = setup.reads_one(source, "bias");
    let problem = setup.problem;
    [("q", &problem.q), ("k", &problem.k), ("v", &problem.v)].into_iter().fold(source, |source, (name, layout)| {
        match shape.read(setup, name) {
            Read::Eight => setup.reads_eight(source, name),
            _ => setup.reads_four(source, name, layout),
        }
    })
}
