//! Dispatches that take long, in pieces: the same workgroups, a part of them at a time.

use super::{Launch, profile::Rates};

/// Pieces of one dispatch at the most, which bounds what its parameters take.
const MOST_PIECES: u64 = 1024;

impl Launch {
    /// Workgroups of the grid.
    pub fn workgroups(&self) -> u64 {
        self.grid.iter().map(|&size| u64::from(size)).product()
    }

    /// Seconds that it is taken to need on a device of these rates.
    pub fn seconds(&self, rates: &Rates) -> f64 {
        rates.seconds(self.flops, self.exponentials, self.bytes)
    }

    /// Why [`Launch::cut`] leaves it whole, whatever is asked for.
    pub fn uncut(&self) -> Option<&'static str> {
        let word = self.source.first_group();
        match self.grid {
            _ if word.is_none_or(|word| word >= self.params.len()) => {
                Some("its kernel has no parameter that says where a piece begins")
            }
            [_, _, depth] if depth > 1 => Some("its grid has three dimensions"),
            _ if self.workgroups() <= 1 => Some("it has one workgroup"),
            _ => None,
        }
    }

    /// The same work as dispatches of at most `most` workgroups each, so that none takes long: the parameter `first_group`
    /// of the shader ([`Source::first_group`](super::Source::first_group)) says with which workgroup each begins. Workgroups
    /// of one dispatch don't wait for each other, so the results have the same bits.
    ///
    /// At least one workgroup is in a piece, and there are at most 1,024 pieces. Without such a parameter it stays whole.
    pub fn cut(&self, most: u64) -> Vec<Launch> {
        let all = self.workgroups();
        let most = most.max(all.div_ceil(MOST_PIECES)).max(1);
        let (Some(word), None) = (self.source.first_group(), self.uncut()) else { return vec![self.clone()] };
        if most >= all {
            return vec![self.clone()];
        }
        // Whole rows of the grid if one fits; else parts of a row. No workgroup is in two pieces: a kernel may work in place.
        let row = u64::from(self.grid[0]);
        let most = if most >= row { most - most % row } else { most };
        let pieces = all.div_ceil(most);
        let share = |amount: u64, groups: u64| (u128::from(amount) * u128::from(groups) / u128::from(all)) as u64;
        (0..pieces)
            .map(|piece| {
                let (begin, end) = (piece * most, (piece * most + most).min(all));
                let of = |amount: u64| share(amount, end) - share(amount, begin);
                let mut params = self.params.clone();
                params[word] += begin as u32;
                let groups = end - begin;
                Launch {
                    label: format!("{}, {} of {pieces}", self.label, piece + 1),
                    params,
                    grid: if most >= row { [row as u32, (groups / row) as u32, 1] } else { [groups as u32, 1, 1] },
                    flops: of(self.flops),
                    exponentials: of(self.exponentials),
                    bytes: of(self.bytes),
                    ..self.clone()
                }
            })
            .collect()
    }

    /// The same kernel for a workgroup behind the last: it does nothing, but a driver that compiles at the first dispatch has
    /// then done so. `None` if the kernel can't be told where to begin.
    pub(crate) fn behind_the_last(&self) -> Option<Launch> {
        let word = self.source.first_group().filter(|&word| word < self.params.len())?;
        let mut params = self.params.clone();
        params[word] = u32::try_from(self.workgroups()).ok()?.checked_add(params[word])?;
        Some(Launch { params, grid: [1, 1, 1], flops: 0, exponentials: 0, bytes: 0, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kernel::Source;

    fn launch(grid: [u32; 3], fields: &str) -> Launch {
        Launch {
            label: "main".into(),
            source: Arc::new(Source::new("t", format!("struct Params {{\n{fields}\n}}\n"))),
            bindings: Vec::new(),
            params: vec![7, 0, 0, 0],
            grid,
            flops: 1000,
            exponentials: 10,
            bytes: 333,
        }
    }

    /// The numbers of the workgroups of a launch, as a shader finds them.
    fn numbers(launch: &Launch) -> Vec<u32> {
        let [x, y, _] = launch.grid;
        (0..y).flat_map(|j| (0..x).map(move |i| (i, j))).map(|(i, j)| launch.params[1] + i + j * x).collect()
    }

    #[test]
    fn each_workgroup_is_in_one_piece_and_the_work_adds_up() {
        for (grid, most) in
            [([1, 1, 1], 1), ([10, 1, 1], 3), ([10, 7, 1], 3), ([10, 7, 1], 10), ([10, 7, 1], 35), ([10, 7, 1], 70)]
        {
            let whole = launch(grid, "n: u32,\nfirst_group: u32,");
            let pieces = whole.cut(most);
            let found: Vec<u32> = pieces.iter().flat_map(numbers).collect();
            assert_eq!(found, numbers(&whole), "{grid:?} in pieces of {most}");
            assert!(pieces.iter().all(|piece| piece.workgroups() <= most), "{grid:?} in pieces of {most}");
            assert!(pieces.iter().all(|piece| piece.params[0] == 7));
            let sum = |of: fn(&Launch) -> u64| pieces.iter().map(of).sum::<u64>();
            assert_eq!((sum(|l| l.flops), sum(|l| l.exponentials), sum(|l| l.bytes)), (1000, 10, 333));
        }
        assert_eq!(launch([10, 1, 1], "n: u32,\nfirst_group: u32,").cut(4)[2].label, "main, 3 of 3");
        // Never more than are worth it.
        assert_eq!(launch([4096, 3, 1], "n: u32,\nfirst_group: u32,").cut(1).len(), 1024);
    }

    #[test]
    fn a_kernel_that_can_not_begin_elsewhere_stays_whole() {
        for (grid, fields, why) in [
            ([10, 1, 1], "n: u32,", "no parameter"),
            ([10, 1, 2], "n: u32,\nfirst_group: u32,", "three dimensions"),
            ([1, 1, 1], "n: u32,\nfirst_group: u32,", "one workgroup"),
        ] {
            let launch = launch(grid, fields);
            assert_eq!(launch.cut(1).len(), 1);
            assert!(launch.uncut().is_some_and(|reason| reason.contains(why)), "{fields}");
        }
    }

    #[test]
    fn behind_the_last_workgroup_there_is_nothing() {
        let behind = launch([10, 7, 1], "n: u32,\nfirst_group: u32,").behind_the_last().expect("it can be told");
        assert_eq!((numbers(&behind), behind.params[0]), (vec![70], 7));
        assert!(launch([10, 7, 1], "n: u32,").behind_the_last().is_none());
    }
}
