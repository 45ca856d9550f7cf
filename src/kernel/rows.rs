//! How kernels that reduce each row of a matrix to something deal the rows to invocations. Shared by the families.

use super::{AdapterKind, Candidate, Profile, Specialization, fold_grid};
use crate::{Error, Result};

/// Rows to be reduced, as far as the choice of a variant needs to know them.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// The kernel family.
    pub(super) family: &'static str,
    /// How many rows.
    pub(super) rows: usize,
    /// Elems of a row: elements, or vectors of `pack` of them.
    pub(super) elems: usize,
    /// Elements of an elem.
    pub(super) pack: usize,
    /// Registers that a lane of the subgroup variant needs for each element that it keeps.
    pub(super) registers: usize,
    /// Loads and stores of an elem in the straight-line code of the subgroup variant. On software adapters the time to
    /// compile goes with them.
    pub(super) accesses: usize,
    /// How often the variants with several lanes a row go through it.
    pub(super) passes: usize,
    /// The rounds that the loops of the plain variant take.
    pub(super) plain_rounds: usize,
    /// Neighbours in memory are elements of neighbouring rows, not of one row.
    pub(super) side_by_side: bool,
}

/// What a vector of elements is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pack {
    /// One row.
    Along,
    /// Rows that lie side by side.
    Across,
}

impl Pack {
    /// Elements of a vector.
    pub(super) const ELEMENTS: usize = 4;
}

/// A way to deal rows to invocations: a variant and its tile shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deal {
    /// A row an invocation, `wg` of them a workgroup.
    Plain { wg: usize },
    /// A row by `lanes` invocations, and `rows` of them a workgroup; a lane keeps `chunks` elems in registers.
    Workgroup { lanes: usize, rows: usize, chunks: usize },
    /// A row a subgroup of `lanes`, which is a workgroup and takes `turns` rows one after the other.
    Subgroup { lanes: usize, chunks: usize, turns: usize },
}

pub(super) const PLAIN: &str = "plain";
pub(super) const WORKGROUP: &str = "workgroup";
pub(super) const SUBGROUP: &str = "subgroup";
/// Deals the elems of a row into shares, and joins what comes of them in a second dispatch.
pub(super) const SPLIT: &str = "split";
pub(super) const VARIANTS: [&str; 4] = [PLAIN, WORKGROUP, SUBGROUP, SPLIT];

/// Invocations of a workgroup of the plain variant on a software adapter, which gives each thread whole workgroups, and of
/// one of very many rows: a workgroup takes 0.1 µs.
const CPU_WG: usize = 16;
const CPU_WG_OF_MANY: usize = 64;
/// Rows that are still very many workgroups then.
const MANY_ROWS: usize = 1 << 14;

/// How the split variant deals a row whose shares are taken by the same invocations in both dispatches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Of a row.
    pub(super) shares: usize,
    /// Of a share, in elems; the last may have less.
    pub(super) share: usize,
    /// Invocations of a share.
    pub(super) lanes: usize,
    /// Shares of a workgroup.
    pub(super) rows: usize,
}

impl Rows {
    /// The variants but the split one, in the order that suits the device.
    fn unsplit(&self, profile: &Profile) -> Vec<Candidate> {
        let cpu = profile.kind == AdapterKind::Cpu;
        let subgroup = self.subgroup(profile);
        // How many elems the subgroup variant loads but once.
        let once = subgroup.as_ref().map_or(0, |&deal| match deal {
            _ if self.passes == 1 => self.elems,
            Deal::Subgroup { lanes, chunks, .. } if (chunks + 1) * lanes > self.elems => self.elems,
            Deal::Subgroup { lanes, chunks, .. } => chunks * lanes,
            _ => 0,
        });
        let kept = once == self.elems;
        let subgroup = match subgroup {
            Ok(_) if self.passes == 1 => Candidate::usable(SUBGROUP, "a subgroup takes neighbouring elements"),
            Ok(_) if kept => Candidate::usable(SUBGROUP, "a row stays in the registers of a subgroup"),
            Ok(Deal::Subgroup { lanes, chunks, .. }) => Candidate::usable(
                SUBGROUP,
                format!(
                    "of a row's {} {} a subgroup keeps {} in registers and loads the others again",
                    self.elems,
                    if self.pack > 1 { "vectors" } else { "elements" },
                    chunks * lanes
                ),
            ),
            Ok(_) => Candidate::usable(SUBGROUP, "a row a subgroup"),
            Err(reason) => Candidate::refused(SUBGROUP, reason),
        };
        let workgroup = match self.workgroup(profile) {
            Ok(_) if cpu => Candidate::usable(WORKGROUP, "barriers are costly on a software adapter"),
            Ok(_) => Candidate::usable(WORKGROUP, "a row is loaded once, by neighbouring invocations"),
            Err(reason) => Candidate::refused(WORKGROUP, reason),
        };
        let plain = match (cpu, self.side_by_side) {
            (_, true) => "one row an invocation: neighbouring invocations read neighbours in memory",
            (true, false) => "one row an invocation: no barriers, compiles at once",
            (false, false) => "one row an invocation: neighbouring invocations read far apart",
        };
        let plain = match self.plain(profile) {
            Ok(_) => Candidate::usable(PLAIN, plain),
            Err(reason) => Candidate::refused(PLAIN, reason),
        };
        // A GPU needs many invocations.
        let mut all = if self.side_by_side && (cpu || self.rows >= 2048) {
            vec![plain, workgroup, subgroup]
        } else if cpu && 2 * once >= self.elems && !self.is_short(profile) {
            vec![subgroup, plain, workgroup]
        } else if cpu {
            // The plain variant goes through a row one time less, and has no lanes to join.
            vec![plain, subgroup, workgroup]
        } else if kept {
            vec![subgroup, workgroup, plain]
        } else {
            vec![workgroup, subgroup, plain]
        };
        all.sort_by_key(|candidate| !candidate.is_usable());
        all
    }

    /// Whether a software adapter's subgroup would have too little to do: what it takes for a row, its lanes' parts to join
    /// above all, is then more than what it saves. Not if there are too few rows to give each processor some.
    fn is_short(&self, profile: &Profile) -> bool {
        const SHORT: usize = 2048;
        const FEW: usize = 16 * CPU_WG;
        if self.rows < FEW {
            return false;
        }
        match self.passes {
            // Single elements load as slowly by neighbouring lanes as by lanes that are far apart.
            1 => self.pack == 1 || self.elems * self.pack <= SHORT,
            _ => profile.subgroup.is_some_and(|(lanes, _)| self.elems < lanes as usize),
        }
    }

    /// Into how many shares the split variant deals a row: at least two, and for few rows so many that the device has
    /// enough to do. On a GPU a workgroup takes a share.
    pub(super) fn shares(rows: usize, elems: usize, profile: &Profile) -> usize {
        let (wanted, least_elems) = match profile.kind {
            AdapterKind::Cpu => (256usize, 64),
            AdapterKind::Gpu => (512, 1024),
        };
        wanted.div_ceil(rows.max(1)).min(elems.div_ceil(least_elems)).max(2)
    }

    /// Shares for the split variant of families that join all shares of a row anew for each of them.
    pub(super) fn split(&self, profile: &Profile) -> Result<Split, String> {
        let wanted = Self::shares(self.rows, self.elems, profile);
        if profile.kind == AdapterKind::Gpu {
            let share = self.elems.div_ceil(wanted);
            return match (Rows { elems: share, ..self.clone() }).workgroup(profile)? {
                Deal::Workgroup { lanes, rows, .. } => Ok(self.in_shares(share.next_multiple_of(lanes), lanes, rows)),
                deal => Err(format!("a share of {share} can't be dealt as {deal:?}")),
            };
        }
        let mut split = self.in_shares(self.elems.div_ceil(wanted).next_multiple_of(BLOCK), 1, CPU_WG);
        // A head, the parts, and the elems.
        let needed = |split: Split| 10 + split.shares + rounds_in_blocks(split.share);
        while rounds(needed(split), profile).is_err() && split.share > BLOCK {
            split = self.in_shares((split.share / 2).next_multiple_of(BLOCK), 1, CPU_WG);
        }
        rounds(needed(split), profile)?;
        Ok(split)
    }

    fn in_shares(&self, share: usize, lanes: usize, rows: usize) -> Split {
        let share = share.max(1);
        Split { shares: self.elems.div_ceil(share).max(1), share, lanes, rows }
    }

    /// The variants in the order that suits the device, given the shares that the split one has, or why it can't run.
    pub(super) fn candidates(&self, shares: Result<usize, String>, profile: &Profile) -> Vec<Candidate> {
        let mut all = self.unsplit(profile);
        // The others give a row to an invocation, a subgroup or a workgroup.
        let few = match profile.kind {
            AdapterKind::Cpu => 64,
            AdapterKind::Gpu => 128,
        };
        let (place, split) = match shares {
            Err(reason) => (all.len(), Candidate::refused(SPLIT, reason)),
            Ok(shares) => {
                let place = match self.rows < few && self.elems >= 2048 {
                    true => 0,
                    false => all.iter().position(|candidate| !candidate.is_usable()).unwrap_or(all.len()),
                };
                (place, Candidate::usable(SPLIT, format!("{shares} shares of each of {} results", self.rows)))
            }
        };
        all.insert(place, split);
        all
    }

    /// The variants of a problem that none can solve.
    pub(super) fn refused(error: &Error) -> Vec<Candidate> {
        VARIANTS.map(|variant| Candidate::refused(variant, error.to_string())).into()
    }

    /// The tile shape of a variant that can run, and is not the split one.
    pub(super) fn deal(&self, variant: &str, profile: &Profile) -> Result<Deal> {
        let refused = |reason| Error::NoVariant { family: self.family, reasons: vec![format!("{variant}: {reason}")] };
        match variant {
            PLAIN => self.plain(profile).map_err(refused),
            WORKGROUP => self.workgroup(profile).map_err(refused),
            SUBGROUP => self.subgroup(profile).map_err(refused),
            _ => Err(Error::op(
                self.family,
                format!("there is no variant `{variant}`; there are {}", VARIANTS.join(", ")),
            )),
        }
    }

    pub(super) fn plain(&self, profile: &Profile) -> Result<Deal, String> {
        rounds(self.plain_rounds, profile)?;
        let wg = match profile.kind {
            AdapterKind::Cpu if self.rows < MANY_ROWS => CPU_WG,
            AdapterKind::Cpu => CPU_WG_OF_MANY,
            AdapterKind::Gpu => 64,
        };
        Ok(Deal::Plain { wg })
    }

    pub(super) fn workgroup(&self, profile: &Profile) -> Result<Deal, String> {
        const WG: usize = 256;
        const MOST_LANES: usize = 256;
        const LEAST_LANES: usize = 8;
        // Each lane two words of workgroup memory.
        let limits = &profile.limits;
        let most = limits.workgroup_invocations.min(limits.workgroup_size_x).min(limits.workgroup_bytes / 8) as usize;
        if most < LEAST_LANES {
            return Err(format!("{LEAST_LANES} invocations with 64 bytes of workgroup memory (the device has {most})"));
        }
        let wg = if most < WG { 1 << most.ilog2() } else { WG };
        // A few elems a lane hide the time that loads take.
        let lanes = self.elems.div_ceil(4).next_power_of_two().clamp(LEAST_LANES, MOST_LANES.min(wg));
        let chunks = (self.elems / lanes).min(8);
        rounds(self.rounds_of_row(lanes, chunks) + 2 * (lanes.ilog2() as usize + 1), profile)?;
        Ok(Deal::Workgroup { lanes, rows: wg / lanes, chunks })
    }

    fn subgroup(&self, profile: &Profile) -> Result<Deal, String> {
        let lanes = match profile.subgroup {
            None => return Err("the device has no subgroup operations".into()),
            Some((least, most)) if least != most => {
                return Err(format!("the subgroup size varies from {least} to {most} here"));
            }
            Some((size, _)) => size as usize,
        };
        let most = profile.limits.workgroup_invocations.min(profile.limits.workgroup_size_x) as usize;
        if lanes > most {
            return Err(format!("a workgroup of a subgroup's {lanes} invocations (the limit is {most})"));
        }
        // On a software adapter, registers are memory; what counts is how long straight-line code takes to compile.
        let (chunks, turns) = match profile.kind {
            AdapterKind::Cpu => {
                let accesses = match (self.passes, self.pack) {
                    // Nothing is kept for another pass.
                    (1, _) => 0,
                    (_, 1) => 320,
                    _ => 192,
                };
                (accesses / self.accesses.max(1), (self.rows / 128).clamp(1, 32))
            }
            AdapterKind::Gpu => (96 / (self.registers * self.pack).max(1), (self.rows / 8192).clamp(1, 8)),
        };
        let chunks = (self.elems / lanes).min(chunks);
        let of_row = 1 + self.rounds_of_row(lanes, chunks);
        rounds(of_row + 1, profile)?;
        let turns = profile.loop_rounds().map_or(turns, |most| turns.min((most as usize - 1) / of_row));
        Ok(Deal::Subgroup { lanes, chunks, turns })
    }

    /// The rounds that a lane takes for the elems of a row that it does not keep.
    fn rounds_of_row(&self, lanes: usize, chunks: usize) -> usize {
        self.passes * ((self.elems - chunks * lanes).div_ceil(lanes) + 1)
    }
}

/// Elems that loops take in straight-line code.
const BLOCK: usize = 8;

/// The rounds of a loop over `elems` that takes a block a round, and of one for the rest.
pub(super) fn rounds_in_blocks(elems: usize) -> usize {
    elems / BLOCK + elems % BLOCK + 2
}

/// [`rounds_in_blocks`] of lanes of which some have less: each loop takes as many rounds as the lane that needs most.
pub(super) fn most_rounds_in_blocks(elems: usize) -> usize {
    elems / BLOCK + elems.min(BLOCK - 1) + 2
}

/// Whether the driver lets an invocation's loops take so many rounds.
pub(super) fn rounds(needed: usize, profile: &Profile) -> Result<(), String> {
    match profile.loop_rounds() {
        Some(most) if needed as u64 > most => Err(format!(
            "an invocation's loops would take {needed} rounds (a software adapter leaves them after {most})"
        )),
        _ => Ok(()),
    }
}

impl Split {
    /// The workgroups that take all shares of so many rows.
    pub(super) fn grid(self, family: &str, rows: usize, profile: &Profile) -> Result<[u32; 3]> {
        fold_grid((rows * self.shares).div_ceil(self.rows) as u64, profile, family)
    }

    /// Fills the slots for the tile shape.
    pub(super) fn slots(self, shader: Specialization) -> Specialization {
        shader.value("LANES", self.lanes).value("ROWS", self.rows).region("TREE", self.lanes > 1)
    }
}

impl Deal {
    /// The workgroups that take all rows.
    pub(super) fn grid(self, family: &str, rows: usize, profile: &Profile) -> Result<[u32; 3]> {
        let rows_each = match self {
            Deal::Plain { wg } => wg,
            Deal::Workgroup { rows, .. } => rows,
            Deal::Subgroup { turns, .. } => turns,
        };
        fold_grid(rows.div_ceil(rows_each) as u64, profile, family)
    }

    /// Fills the slots for the tile shape.
    pub(super) fn slots(self, shader: Specialization) -> Specialization {
        match self {
            Deal::Plain { wg } => shader.value("WG", wg),
            Deal::Workgroup { lanes, rows, chunks } => {
                shader.value("LANES", lanes).value("ROWS", rows).value("CHUNKS", chunks)
            }
            Deal::Subgroup { lanes, chunks, .. } => shader.value("LANES", lanes).value("CHUNKS", chunks),
        }
    }

    /// The same for rows of which some are too short for straight-line code.
    pub(super) fn without_chunks(self) -> Self {
        match self {
            Deal::Plain { .. } => self,
            Deal::Workgroup { lanes, rows, .. } => Deal::Workgroup { lanes, rows, chunks: 0 },
            Deal::Subgroup { lanes, turns, .. } => Deal::Subgroup { lanes, chunks: 0, turns },
        }
    }

    /// Rows that a workgroup takes one after the other.
    pub(super) fn turns(self) -> usize {
        match self {
            Deal::Subgroup { turns, .. } => turns,
            Deal::Plain { .. } | Deal::Workgroup { .. } => 1,
        }
    }
}

/// The slot `total` for packed elems.
pub(super) const PACKED_TOTAL: &str = "fn total(v: elem) -> f32 { return (v.x + v.y) + (v.z + v.w); }";

/// The slot `largest` for packed elems.
pub(super) const PACKED_LARGEST: &str = "fn largest(v: elem) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }";
