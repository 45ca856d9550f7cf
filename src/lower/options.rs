use std::collections::BTreeMap;

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
}

impl Default for Options {
    fn default() -> Self {
        Options { force: BTreeMap::new(), choices: Choices::default(), fuse: true, recognise: true, share_memory: true }
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
