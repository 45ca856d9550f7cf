//! The oddities of devices and drivers, in one table: what, where, and what the kernels do about it.

use std::time::Duration;

use super::{AdapterKind, Backend, CooperativeMatrix, Profile, profile::HALVES};

/// A property of a device or driver that kernels and their choice have to heed.
#[derive(Clone, Copy, Debug)]
pub struct Quirk {
    /// A name for messages.
    pub name: &'static str,
    /// What it is, and what is done about it.
    pub what: &'static str,
    has: fn(&Profile) -> bool,
}

impl Quirk {
    /// Whether a device has it, as far as its profile tells.
    pub fn applies(&self, profile: &Profile) -> bool {
        (self.has)(profile)
    }
}

/// llvmpipe ends loops.
pub(super) const LOOPS_END: Quirk = Quirk {
    name: "loops end",
    what: "llvmpipe leaves all loops of an invocation after 65,535 rounds, nested ones counted together, and the result is wrong \
           without a word (LP_MAX_TGSI_LOOP_ITERATIONS); kernels count theirs on the host, and share out their work or are \
           refused. Taken for true of every software adapter",
    has: |profile| profile.kind == AdapterKind::Cpu,
};

/// llvmpipe knows what is uniform.
pub(super) const SHARED_LOADS: Quirk = Quirk {
    name: "shared loads",
    what: "llvmpipe loads lane by lane; from Mesa 26 on (26.2 was measured) it knows what all lanes load alike, loads it once, and \
           compiles ten times as fast: kernels that broadcast on older ones load there, and hold more in registers",
    has: |profile| {
        let release = profile.driver.strip_prefix("llvmpipe").and_then(|rest| rest.split_once("Mesa "));
        let major = release.and_then(|(_, release)| release.split('.').next()?.parse::<u32>().ok());
        profile.kind == AdapterKind::Cpu && major.is_some_and(|major| major >= 26)
    },
};

/// Branches that no lane takes run all the same.
pub(super) const MASKED_BRANCHES: Quirk = Quirk {
    name: "masked branches",
    what: "a software adapter runs both sides of a branch and masks the lanes (llvmpipe jumps over a side that no lane takes from \
           Mesa 26 on: 26.2 was measured): what is for the last round of a loop gets a loop of its own there",
    has: |profile| profile.kind == AdapterKind::Cpu && !SHARED_LOADS.applies(profile),
};

/// Subgroups of no fixed size.
pub(super) const VARYING_SUBGROUPS: Quirk = Quirk {
    name: "varying subgroups",
    what: "the size of a subgroup may be another in each dispatch, and nothing can ask for one: kernels that need it fixed are refused",
    has: |profile| profile.subgroup.is_some_and(|(least, most)| least != most),
};

/// Cooperative matrices in software.
pub(super) const SLOW_COOPERATIVE_MATRICES: Quirk = Quirk {
    name: "slow cooperative matrices",
    what: "a software adapter has no units for them, and kernels made for it are several times faster: never chosen there, but \
           they can be forced",
    has: |profile| profile.kind == AdapterKind::Cpu && !profile.cooperative_matrices.is_empty(),
};

/// Cooperative matrices that failed their self-test.
pub(super) const WRONG_COOPERATIVE_MATRICES: Quirk = Quirk {
    name: "wrong cooperative matrices",
    what: "a product of known result came out wrong, or differently each time, when the device was opened: they are not used",
    has: |profile| !profile.cooperative_matrix_faults.is_empty(),
};

/// The driver ends what takes long.
pub(super) const WATCHDOG: Quirk = Quirk {
    name: "watchdog",
    what: "the driver of a GPU takes work that doesn't end for a device that hangs, and resets it: Windows after 2 s (TDR), others \
           after 5 to 10 s, and a screen that the GPU draws stands still until then; dispatches and submissions that may take \
           long are cut",
    has: |profile| profile.kind == AdapterKind::Gpu,
};

/// Compilers that take every number for finite.
pub(super) const ASSUMED_FINITE: Quirk = Quirk {
    name: "assumed finite",
    what: "Metal compiles with fast math, also below MoltenVK, and Direct3D's and OpenGL's compilers promise as little; nor does a \
           browser say what it compiles with. Kernels keep a NaN that a row sees there too, as far as bits go, but arithmetic may \
           drop it: the cases and tests of what is not finite are refused",
    has: |profile| match profile.backend {
        Backend::Vulkan => profile.driver.contains("MoltenVK"),
        Backend::Metal | Backend::Dx12 | Backend::Gl | Backend::Browser => true,
    },
};

/// Exponentials that lose a NaN.
pub(super) const CLAMPED_EXP: Quirk = Quirk {
    name: "clamped exp",
    what: "exp of a NaN may be a number, as the argument is clamped (SwiftShader; taken for true of every software adapter but \
           llvmpipe): attention tells a NaN by its bits for each weight there, elsewhere by its sums",
    has: |profile| profile.kind == AdapterKind::Cpu && !profile.driver.starts_with("llvmpipe"),
};

/// What any device may do, because WGSL lets it.
const LOOSE_FLOATS: Quirk = Quirk {
    name: "loose floats",
    what: "shaders may assume that there is no infinity and no NaN, may flush subnormals, and may truncate in pack2x16float; \
           tanh may overflow, and pow(x, 2) be NaN for x < 0: masks are tested by bits, narrow floats rounded in integers, and \
           functions with such ends written out",
    has: |_| true,
};

/// Every quirk that is known and heeded.
pub const QUIRKS: [Quirk; 10] = [
    LOOPS_END,
    SHARED_LOADS,
    MASKED_BRANCHES,
    VARYING_SUBGROUPS,
    SLOW_COOPERATIVE_MATRICES,
    WRONG_COOPERATIVE_MATRICES,
    WATCHDOG,
    ASSUMED_FINITE,
    CLAMPED_EXP,
    LOOSE_FLOATS,
];

/// What they mean for kernels.
impl Profile {
    /// How long the device may be busy with one submission before its driver may reset it; `None` where none does so, as
    /// with software adapters. It is the least that is known of any system's driver.
    pub fn watchdog(&self) -> Option<Duration> {
        WATCHDOG.applies(self).then_some(Duration::from_secs(2))
    }

    /// How many rounds an invocation's loops may take, all of them together, before the driver leaves them without a word
    /// and the result is wrong; `None` where there is no such end.
    ///
    /// llvmpipe stops each shader after 65,535 rounds, shared by all loops, nested ones too (`LP_MAX_TGSI_LOOP_ITERATIONS`
    /// in Mesa's `lp_bld_limits.h`); entering a loop costs one. Loops that the driver unrolls don't count, but that can't be
    /// relied on. A variant that could take more has to share out its work or be refused.
    pub fn loop_rounds(&self) -> Option<u64> {
        LOOPS_END.applies(self).then_some(65_535)
    }

    /// Whether a load that all invocations of a subgroup share is one load, and compiling quick, on an adapter that has to do the
    /// work of a GPU in software.
    pub(crate) fn shares_loads(&self) -> bool {
        SHARED_LOADS.applies(self)
    }

    /// Whether the instructions of a branch run though no lane takes it.
    pub(crate) fn masks_branches(&self) -> bool {
        MASKED_BRANCHES.applies(self)
    }

    /// Whether exp of a NaN may be a number.
    pub(crate) fn clamps_exp(&self) -> bool {
        CLAMPED_EXP.applies(self)
    }

    /// Why a NaN or an infinity may come out as a number here, whatever kernels do; `None` where arithmetic is IEEE's.
    pub fn assumes_finite(&self) -> Option<&'static str> {
        ASSUMED_FINITE.applies(self).then_some(ASSUMED_FINITE.what)
    }

    /// The size of every subgroup of every dispatch, if there is only one.
    pub fn fixed_subgroup(&self) -> Option<u32> {
        self.subgroup.filter(|_| !VARYING_SUBGROUPS.applies(self)).map(|(size, _)| size)
    }

    /// Invocations of each of the subgroups that multiply f16 matrices of this size with f32 sums; or why none do.
    pub(crate) fn cooperative_lanes(&self, size: u32) -> Result<u32, String> {
        let matrix = CooperativeMatrix::square(size, HALVES);
        if let Some((_, fault)) = self.cooperative_matrix_faults.iter().find(|(wrong, _)| *wrong == matrix) {
            return Err(format!("failed the test when the device was opened: {fault}"));
        }
        if !self.cooperative_matrices.contains(&matrix) {
            return Err(format!("the device has no {size}×{size}×{size} matrices of f16 with f32 sums"));
        }
        let varies = "takes subgroups of one size, which the device does not promise";
        self.fixed_subgroup().ok_or_else(|| varies.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_quirk_applies_where_it_says() {
        let names = |profile: &Profile| -> Vec<&str> {
            QUIRKS.iter().filter(|quirk| quirk.applies(profile)).map(|quirk| quirk.name).collect()
        };
        let matrix = CooperativeMatrix::square(16, HALVES);
        let gpu = Profile { cooperative_matrices: vec![matrix], ..Profile::portable() };
        assert_eq!(names(&gpu), ["watchdog", "loose floats"]);
        let software = Profile { kind: AdapterKind::Cpu, subgroup: Some((4, 32)), ..gpu.clone() };
        assert_eq!(
            names(&software),
            [
                "loops end",
                "masked branches",
                "varying subgroups",
                "slow cooperative matrices",
                "clamped exp",
                "loose floats"
            ]
        );
        for (driver, shared) in [
            ("llvmpipe Mesa 22.3.6 (LLVM 15.0.6)", false),
            ("llvmpipe Mesa 26.2.6-1 (LLVM 22.1.8)", true),
            ("llvmpipe Mesa 27.0.0-devel (git-1a2b3c4)", true),
            ("llvmpipe", false),
            ("radv Mesa 26.2.6", false),
        ] {
            let profile = Profile { driver: driver.into(), ..software.clone() };
            assert_eq!(SHARED_LOADS.applies(&profile), shared, "{driver}");
        }
        for (backend, driver, assumed) in [
            (Backend::Vulkan, "radv Mesa 26.2.6", false),
            (Backend::Vulkan, "MoltenVK 1.3.0", true),
            (Backend::Metal, "", true),
            (Backend::Dx12, "", true),
            (Backend::Gl, "", true),
            (Backend::Browser, "", true),
        ] {
            let profile = Profile { backend, driver: driver.into(), ..gpu.clone() };
            assert_eq!(profile.assumes_finite().is_some(), assumed, "{backend:?} {driver}");
            assert_eq!(names(&profile).contains(&"assumed finite"), assumed, "{backend:?} {driver}");
        }
        let wrong = Profile { cooperative_matrix_faults: vec![(matrix, "3 for 4".into())], ..gpu };
        assert_eq!(names(&wrong), ["wrong cooperative matrices", "watchdog", "loose floats"]);
    }
}
