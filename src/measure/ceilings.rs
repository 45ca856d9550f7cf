use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::{Arithmetic, Rates};

/// The limits of a device, as kernels that run into them found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes a second, past the caches: read, or read and written.
    pub memory: f64,
    /// Bytes a second, within the caches.
    pub cache: f64,
    /// Bytes that the caches may hold.
    pub cache_bytes: u64,
    /// Whether that was seen, as a drop in bandwidth; if not, it is a guess on the safe side.
    pub cache_measured: bool,
    /// The bandwidth of each size that was tried.
    pub bandwidth: Vec<Bandwidth>,
    /// Floating-point operations a second, a multiplication and an addition being two.
    pub multiply: BTreeMap<Arithmetic, f64>,
    /// Exponentials on registers.
    #[serde(default)]
    pub exponentials: Option<Exponentials>,
    /// Seconds of a dispatch that does nothing, among many.
    pub dispatch: f64,
    /// Seconds from the recording of one such dispatch to the end of waiting for it, by the host's clock.
    pub submit: f64,
}

/// The part of a ceiling that the slowest of the kernels that take long can be counted on to reach.
const REACHED: f64 = 0.25;

impl Ceilings {
    /// How fast kernels are on this device, to cut what takes long: for [`Bounds::rates`](crate::gpu::Bounds::rates). It is a
    /// quarter of what the device is capable of.
    pub fn rates(&self) -> Rates {
        let flops = self.multiply.get(&Arithmetic::F32).map_or(Rates::default().flops, |rate| REACHED * rate);
        Rates { flops, bytes: REACHED * self.memory, measured: true }
    }
}

/// How fast a device takes exponentials of f32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exponentials {
    /// In a second.
    pub rate: f64,
    /// Whether they take their time from multiplications and additions, of which software makes them. A GPU has units for
    /// them beside the others.
    pub multiplied: bool,
}

/// How fast bytes were moved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// How.
    pub moving: Moving,
    /// Bytes that are touched.
    pub bytes: u64,
    /// Bytes a second.
    pub rate: f64,
}

/// What is done with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moving {
    /// As many are read as are written.
    Copy,
    /// They are read.
    Read,
}
