//! A panel of keys and values in the registers of a subgroup, and the query rows that walk past it: for adapters that run
//! on a CPU.

use super::{
    mend, partials, sequences,
    setup::{Rank, Setup, Tiling, refused},
    storage::Float,
};
use crate::{
    Result,
    kernel::{
        AdapterKind, Binding, Kernel, Profile, Specialization,
        variant::{Needs, Variant},
    },
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
    /// The widest one that an operand allows, which lies in groups of so many or doesn't.
    fn widest(profile: &Profile, has_groups: impl Fn(usize) -> bool) -> Self {
        // Where compiling is quick, drivers unpack words of 64 bits again for each row of q.
        let widths = if profile.shares_loads() { &[Read::Four][..] } else { &[Read::Eight, Read::Four] };
        widths.iter().copied().find(|width| has_groups(width.elements())).unwrap_or(Read::One)
    }

    /// The widest one that an input allows.
    fn of(setup: &Setup<'_>, operand: Float) -> Self {
        Read::widest(setup.profile, |elements| setup.has_groups(operand, elements))
    }

    /// The same, if eights pay.
    fn eight_if(self, pays: bool) -> Self {
        match self {
            Read::Eight if !pays => Read::Four,
            Read::Eight | Read::Four | Read::One => self,
        }
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

/// The value slots of `panel.wesl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
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

impl Tile {
    fn of(setup: &Setup<'_>, depth: Depth) -> Result<Self, String> {
        let lanes = setup.lanes()?;
        let d4 = setup.sizes.d.div_ceil(4);
        // Where a lane would have four columns of q or fewer, a load of eight is none the less.
        let q_run = if d4 > lanes && Read::of(setup, Float::Q) == Read::Eight { 2 } else { 1 };
        let q4 = d4.div_ceil(q_run * lanes) * q_run;
        let all = setup.sizes.dv.div_ceil(4 * lanes);
        let tile =
            |column_parts: usize| Tile { lanes, c: 1, d4, q_run, q4, dv4: all.div_ceil(column_parts), column_parts };
        let loads = |tile: Tile| {
            let [k, v] = [Float::K, Float::V].map(|operand| tile.read(setup, operand));
            k.weight(d4) + lanes * v.weight(tile.dv4)
        };
        let quick = setup.profile.shares_loads();
        let one = (1..all).map(tile).find(|&tile| quick || loads(tile) <= MOST_LOADS_OF_KEYS).unwrap_or(tile(all));
        let bytes = 16 * lanes * (d4 + lanes * one.dv4);
        let most_loads = if quick { usize::MAX } else { depth.most_loads() };
        let most = match setup.sizes.keys {
            few if few <= 2 * lanes => 2,
            some if some < MANY_KEYS => 4,
            _ => depth.most(),
        };
        let fits = |&c: &usize| c <= most && c * loads(one) <= most_loads && c * bytes <= MOST_BYTES;
        let c = STEPS.into_iter().find(fits).unwrap_or(1);
        Ok(Tile { c, ..one })
    }

    /// How much of an input a load reads.
    fn read(self, setup: &Setup<'_>, operand: Float) -> Read {
        let pays = match operand {
            Float::Q => self.q_run == 2,
            Float::K => true,
            Float::V => self.dv4 > 1,
            Float::Bias => false,
        };
        Read::of(setup, operand).eight_if(pays)
    }

    /// How much of `out` a load reads, in which O of a row lies between two panels.
    fn read_out(self, setup: &Setup<'_>) -> Read {
        let widest = Read::widest(setup.profile, |elements| setup.out_has_groups(elements));
        widest.eight_if(self.dv4.is_multiple_of(2))
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
        let tiling = |rows: usize| Tiling { column_parts: self.column_parts, ..Tiling::of(rows, setup.span(rows)) };
        let mut rows = MOST_ROWS;
        while rows > LEAST_ROWS && setup.workgroups(tiling(rows)) < BUSY {
            rows /= 2;
        }
        let keys = setup.sizes.keys;
        while rows > LEAST_ROWS && self.most_keys(rows, setup) < keys {
            rows /= 2;
        }
        let most = self.most_keys(rows, setup).min(mend::most_keys(setup));
        let splits = keys.div_ceil(most.max(1)).max(1);
        if splits > partials::MOST_NEEDED {
            return Err(format!("{keys} keys take {splits} parts, at most {} are made", partials::MOST_NEEDED));
        }
        Ok(Tiling { splits, ..tiling(rows) })
    }
}

/// The tile and the tiling of a problem; or why there is none.
fn plan(setup: &Setup<'_>, depth: Depth) -> Result<(Tile, Tiling), String> {
    let tile = Tile::of(setup, depth)?;
    Ok((tile, tile.tiling(setup)?))
}

impl Variant<Setup<'_>> for Depth {
    fn name(&self) -> &'static str {
        match self {
            Depth::Usual => "panel",
            Depth::Deep => "panel_deep",
        }
    }

    /// On a software adapter, where the panel wins at any size.
    fn rank(&self, setup: &Setup<'_>) -> u32 {
        (match setup.profile.kind {
            AdapterKind::Cpu => Rank::MadeForIt,
            AdapterKind::Gpu => Rank::MadeForOthers,
        }) as u32
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        match self {
            Depth::Usual => "keys and values in the registers of a subgroup, for a CPU",
            Depth::Deep => {
                "panel with more keys, up to a fifth faster; compiles up to three times as long, for `tune` to find"
            }
        }
        .into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        setup.check_held()?;
        let needs = setup.needs_of_outputs()?;
        if *self == Depth::Deep {
            if setup.flops() < MANY_FLOPS {
                return Err(format!("{} operations are not worth its compiling", setup.flops()));
            }
            if Tile::of(setup, *self).is_ok_and(|deep| Tile::of(setup, Depth::Usual) == Ok(deep)) {
                return Err("panel holds as many keys".into());
            }
        }
        let (tile, tiling) = plan(setup, *self)?;
        let [panel, once] = tile.rounds(tiling.rows);
        let keys = setup.sizes.keys.div_ceil(tiling.splits);
        let rounds = (keys.div_ceil(tile.block()) * panel + once) as u64;
        Ok(Needs {
            invocations: tile.lanes as u64,
            workspace: partials::bytes(setup, tiling),
            // What is said of its tiles.
            buffers: needs.buffers + 1,
            rounds: needs.rounds.max(rounds).max(mend::rounds(setup, keys)),
            ..needs
        })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let (tile, tiling) = plan(setup, *self).map_err(|reason| refused(self.name(), &reason))?;
        let source = source(setup, tile, tiling);
        let mut kernel = sequences::begin(setup)?;
        let odd_tiles = mend::odd_tiles(setup, tiling, &mut kernel);
        let odd = Binding::write(odd_tiles);
        if tiling.splits > 1 {
            let to = partials::split(setup, &mut kernel, "panel", source, tiling, Some(odd))?;
            kernel.launches.push(mend::split(setup, tiling, odd_tiles, to)?);
            partials::merge(setup, &mut kernel, to, tiling)?;
            return Ok(kernel);
        }
        let out = setup.wide_out(&mut kernel);
        let source = match tile.read_out(setup) {
            Read::Eight => setup.keeps_eight(source),
            Read::Four | Read::One => setup.reads_out(setup.writes_four(source, out)),
        };
        let source = source.region("LSE", setup.problem.lse);
        let outputs = setup.outputs(out).into_iter().chain([odd]).collect();
        kernel.launches.push(setup.launch("panel".into(), source, tiling, None, outputs, 0)?);
        kernel.launches.push(mend::whole(setup, tiling, odd_tiles, out)?);
        setup.finish(&mut kernel, out)?;
        Ok(kernel)
    }
}

fn source(setup: &Setup<'_>, tile: Tile, tiling: Tiling) -> Specialization {
    let source = setup
        .specialize("attention::panel")
        .value("LANES", tile.lanes)
        .value("HALVINGS", tile.lanes.ilog2())
        .value("C", tile.c)
        .value("D4", tile.d4)
        .value("D8", tile.d4 / 2)
        .value("DT", tile.d4 % 2)
        .value("Q_RUN", tile.q_run)
        .value("Q4", tile.q4)
        .value("Q8", tile.q4 / 2)
        .value("QT", tile.q4 % 2)
        .value("DV4", tile.dv4)
        .value("DV8", tile.dv4 / 2)
        .value("DVT", tile.dv4 % 2)
        .value("COLUMN_PARTS", tile.column_parts)
        .region("SPANS", tiling.span > 1)
        .region("FUSED", tile.fuses(setup));
    let source = setup.reads_one(source, Float::Bias);
    [Float::Q, Float::K, Float::V].into_iter().fold(source, |source, operand| match tile.read(setup, operand) {
        Read::Eight => setup.reads_eight(source, operand),
        Read::Four | Read::One => setup.reads_four(source, operand),
    })
}
