use std::{collections::BTreeMap, time::Duration};

use super::Choices;

/// What [`lower`](super::lower) may do, and must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Kernel family → variant: the variant that every step of the family takes, whatever the order of its candidates.
    pub force: BTreeMap<String, String>,
    /// What was measured on the device, which goes before the order of the candidates.
    pub choices: Choices,
    /// Whether operations are fused; otherwise each is a kernel of its own. On by default.
    pub fuse: bool,
    /// Whether operations that are written out in simpler ones are recognised. On by default.
    pub recognise: bool,
    /// Whether temporaries share memory, also in place; otherwise each has its own. On by default.
    pub share_memory: bool,
    /// How long one dispatch may take, by the kernel's formulas and [`Profile::rates`](crate::kernel::Profile::rates); longer
    /// ones are cut into several, with the same bits. `None`: a quarter of what the device's
    /// [watchdog](crate::kernel::Profile::watchdog) allows, and without end where there is none.
    pub longest_dispatch: Option<Duration>,
    /// How long one submission may take: a run that takes longer becomes several. `None`: half of what the watchdog allows.
    pub longest_submission: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            force: BTreeMap::new(),
            choices: Choices::default(),
            fuse: true,
            recognise: true,
            share_memory: true,
            longest_dispatch: None,
            longest_submission: None,
        }
    }
}

impl Options {
    /// One kernel an operation: nothing fused, nothing recognised.
    pub fn unfused() -> Self {
        Options { fuse: false, recognise: false, ..Options::default() }
    }

    /// Makes every step of a kernel family take this variant.
    pub fn force(mut self, family: impl Into<String>, variant: impl Into<String>) -> Self {
        self.force.insert(family.into(), variant.into());
        self
    }
}
