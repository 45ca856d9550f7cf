//! Any view, block by block.

use super::transposed::Setup;
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel, blocks,
        variant::{Needs, Variant},
    },
};

pub(super) struct Plain;

impl Variant<Setup<'_>> for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu if setup.fills_tiles() => 30,
            AdapterKind::Gpu => 10,
            AdapterKind::Cpu => 20,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        blocks::only("copy").reason.into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        setup.problem.assembly().needs()
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        setup.problem.assembly().kernel(setup.profile)
    }
}
