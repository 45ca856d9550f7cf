//! What a watched run has in memory that a kernel must not read, or not write.

/// Bytes behind the end of each buffer that no kernel may write.
pub(super) fn margin(guard: bool) -> u64 {
    if guard { 256 } else { 0 }
}

/// A NaN as f32, as two f16 and as two bf16; as bool neither 0 nor 1.
pub(super) const POISON: u32 = 0x7ffb_7ffb;

/// 7·10²⁸ as f32 and as bf16, 7612 as f16; as bool neither 0 nor 1. What drops a NaN, such as a maximum, shows this.
pub(super) const GARBAGE: u32 = 0x6f6f_6f6f;

/// The bytes of a tensor, then `fill` up to `size` bytes.
pub(super) fn surrounded(bytes: &[u8], size: u64, fill: u32) -> Vec<u8> {
    let mut all: Vec<u8> = fill.to_le_bytes().into_iter().cycle().take(size as usize).collect();
    all[..bytes.len()].copy_from_slice(bytes);
    all
}
