//! A panel of rows in the registers of a subgroup, with what they get, and the rows that walk past it: for adapters that run on a
//! CPU.

use super::{
    odd,
    setup::{Output, Pass, Setup},
};
use crate::{
    DType, Result,
    kernel::{
        AdapterKind, Kernel, Specialization,
        attention::{
            setup::{Rank, refused},
            storage::{Float, reads_eights},
        },
        variant::{Needs, Variant},
    },
};

/// How many rows a lane may have, most first. There are few such steps, since each is another text to compile.
const STEPS: [usize; 3] = [4, 2, 1];
/// vec4s that a lane may hold: rows, and as much again of what they get. More are stored and loaded again for each row that walks
/// past, and take long to compile.
const MOST_HELD: usize = 256;
/// vec4s of a row of q and of one of v together, at most for more than one row in a lane, and at most at all: LLVM 15 takes minutes for
/// wider ones.
const MOST_OF_MANY: usize = 32;
const MOST_OF_ONE: usize = 64;

/// The value slots of the panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    /// Invocations of a subgroup.
    lanes: usize,
    /// Rows of a panel, over `lanes`.
    c: usize,
    /// Rows of q and k, and of v and dout.
    narrow: Row,
    wide: Row,
}

/// How wide rows are, in vec4s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    /// Of one that a lane has alone.
    all: usize,
    /// Of one that all lanes share: those of a lane, and how many of them lie side by side.
    own: usize,
    run: usize,
}

impl Row {
    fn of(columns: usize, lanes: usize, has_eights: bool) -> Self {
        let all = columns.div_ceil(4);
        // Where a lane would have four columns or fewer, a load of eight is none the less.
        let run = if all > lanes && has_eights { 2 } else { 1 };
        Row { all, own: all.div_ceil(run * lanes) * run, run }
    }
}

impl Tile {
    fn of(setup: &Setup<'_>) -> Result<Self, String> {
        let attention = &setup.attention;
        let lanes = attention.lanes()?;
        let sizes = &attention.sizes;
        // Where loads are shared, compiling is quick as well.
        let is_quick = attention.profile.shares_loads();
        let [narrow, wide] = [sizes.d, sizes.dv].map(|columns| Row::of(columns, lanes, !is_quick));
        let rows = sizes.rows.max(sizes.keys);
        let all = narrow.all + wide.all;
        if all > MOST_OF_ONE && !is_quick {
            return Err(format!("heads of {} and {} columns would take minutes to compile", sizes.d, sizes.dv));
        }
        let fits =
            |&c: &usize| 2 * c * all <= MOST_HELD && (c == 1 || (all <= MOST_OF_MANY || is_quick) && c * lanes <= rows);
        let c = STEPS.into_iter().find(fits).unwrap_or(1);
        Ok(Tile { lanes, c, narrow, wide })
    }

    /// Rows of a panel.
    fn block(self) -> usize {
        self.c * self.lanes
    }

    fn passes(self) -> [Pass; 2] {
        [Pass::Rows(self.block()), Pass::Keys(self.block())]
    }

    /// Rounds of the loops of a pass.
    fn rounds(self, setup: &Setup<'_>, pass: Pass) -> usize {
        let sizes = &setup.attention.sizes;
        match pass {
            Pass::Rows(_) => sizes.keys + 64,
            // The rows of each head in groups, which need not begin with one; and records, which may all be in one panel.
            Pass::Keys(_) => {
                let records = setup.attention.records();
                sizes.group() * (sizes.rows + 3 * (sizes.rows / self.lanes + 2) * records.min(sizes.rows + 1))
                    + records
                    + 64
            }
            Pass::Elements(_) => 0,
        }
    }

    fn source(self, setup: &Setup<'_>, pass: Pass, outputs: &[Output]) -> Specialization {
        let kernel = if let Pass::Rows(_) = pass { "attention_grad::panel_rows" } else { "attention_grad::panel_keys" };
        let Tile { lanes, c, narrow, wide } = self;
        let attention = &setup.attention;
        let source = setup
            .specialize(kernel, outputs)
            .value("LANES", lanes)
            .value("C", c)
            .value("D4", narrow.all)
            .value("D8", narrow.all / 2)
            .value("DT", narrow.all % 2)
            .value("RUN", narrow.run)
            .value("R4", narrow.own)
            .value("R8", narrow.own / 2)
            .value("RT", narrow.own % 2)
            .value("DV4", wide.all)
            .value("DV8", wide.all / 2)
            .value("DVT", wide.all % 2)
            .value("V_RUN", wide.run)
            .value("V4", wide.own)
            .value("V8", wide.own / 2)
            .value("VT", wide.own % 2);
        let source = [Float::Q, Float::K, Float::V].into_iter().fold(source, |source, operand| {
            match !attention.profile.shares_loads() && attention.has_groups(operand, 8) {
                true => attention.reads_eight(source, operand),
                false => attention.reads_four(source, operand),
            }
        });
        match !attention.profile.shares_loads() && attention.lies_in_groups(&setup.problem.dout, DType::F32, 8) {
            true => reads_eights(source, "dout", DType::F32),
            false => setup.reads_dout(source),
        }
    }
}

#[derive(Debug)]
pub(super) struct Panel;

impl Variant<Setup<'_>> for Panel {
    fn name(&self) -> &'static str {
        "panel"
    }

    /// On a software adapter, where the panel wins at any size.
    fn rank(&self, setup: &Setup<'_>) -> u32 {
        (match setup.attention.profile.kind {
            AdapterKind::Cpu => Rank::Suited,
            AdapterKind::Gpu => Rank::MadeForOthers,
        }) as u32
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "rows and what they get in the registers of a subgroup, for a CPU".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        setup.attention.check_held()?;
        let tile = Tile::of(setup)?;
        let passes = tile.passes().into_iter().filter(|&pass| setup.has(pass));
        let of_panels = passes.map(|pass| tile.rounds(setup, pass)).max().unwrap_or(0);
        let needs = odd::needs(setup)?;
        Ok(Needs { invocations: tile.block() as u64, rounds: needs.rounds.max(of_panels as u64), ..needs })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let tile = Tile::of(setup).map_err(|reason| refused(self.name(), &reason))?;
        let launches = tile.passes().into_iter().zip(["panel: queries", "panel: keys"]);
        odd::kernel(setup, launches, |pass, outputs| tile.source(setup, pass, outputs))
    }
}
