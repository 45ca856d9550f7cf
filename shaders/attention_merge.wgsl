// Attention, the launch after a split of the keys: joins the parts of each row, in their order. With LSES, whole results of
// attention over parts of the keys, and their lse: m is then lse, and l is 1.
//
//     m = max_s m_s, l = Σ_s l_s·exp(m_s − m), out = Σ_s O_s·exp(m_s − m) / l, lse = m + log l       over the parts with l_s > 0
//
// "Flash-Decoding for long-context inference", 2023. An invocation takes one element of out,
// or the two of a word.

struct Params {
    workgroups: u32,
    splits: u32,
    // Hq
    heads: u32,
    // Tq, packed ΣTq; and rows of all heads of all items.
    rows: u32,
    all_rows: u32,
    // Dv
    dv: u32,
    // First element, and steps of the axes (B, H, T, D).
    out_offset: u32,
    out_b: u32,
    out_h: u32,
    out_t: u32,
    out_d: u32,
    lse_b: u32,
    lse_h: u32,
    lse_t: u32,
}

alias out_elem = f32; // @slot out_elem: f32, or u32 for two narrow elements

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<f32>; // O (splits, B, Hq, Tq, Dv), then m and l (splits, B, Hq, Tq, 2)
// @region LSES
@group(0) @binding(2) var<storage, read> part_lse: array<f32>; // (splits, B, Hq, Tq); then `part` is out of each
// @end
@group(0) @binding(3) var<storage, read_write> out: array<out_elem>; // (B, Hq, Tq, Dv); packed (ΣTq, Hq, Dv)
// @region LSE
@group(0) @binding(4) var<storage, read_write> lse: array<f32>; // (B, Hq, Tq); packed (ΣTq, Hq)
// @end

const WG: u32 = 64u;
const COLUMNS: u32 = 1u; // @slot COLUMNS: of an invocation, 1 or 2
const LOWEST: f32 = -3.40282346e+38f;

// @region NARROW
// [block narrow: f32 to the bits of narrower floats]
// The bits of the nearest f16, halves to even: drivers may truncate in pack2x16float.
fn f16_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let a = bits & 0x7fffffffu;
  let subnormal = bitcast<u32>(abs(x) + 0.5) - 0x3f000000u;
  let normal = (a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u;
  let large = select(0x7c00u, 0x7e00u, a > 0x7f800000u);
  return ((bits >> 16u) & 0x8000u) | select(select(normal, subnormal, a < 0x38800000u), large, a >= 0x47800000u);
}

// The bits of the nearest bf16, halves to even.
fn bf16_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return select((bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u, (bits >> 16u) | 0x40u, (bits & 0x7fffffffu) > 0x7f800000u);
}
// [end]
// @end

// @slot write: writes columns d to d + COLUMNS of a row of out
fn write(row: u32, d: u32, step: u32, two: vec2<f32>) { out[row + d * step] = two.x; }

// m and l of row r in part s; l is 0 if it saw nothing there.
fn statistics(s: u32, r: u32) -> vec2<f32> {
    let row = s * p.all_rows + r;
    var found: vec2<f32>;
    // @region !LSES
    let at = p.splits * p.all_rows * p.dv + 2u * row;
    found = vec2<f32>(part[at], part[at + 1u]);
    // @end
    // @region LSES
    found = vec2<f32>(part_lse[row], select(0.0, 1.0, part_lse[row] > LOWEST));
    // @end
    return found;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let w = workgroup.x + workgroup.y * grid.x;
    // A row without elements still has an lse.
    let columns = max((p.dv + COLUMNS - 1u) / COLUMNS, 1u);
    let x = w * WG + t;
    if w >= p.workgroups || x >= p.all_rows * columns {
        return;
    }
    let r = x / columns;
    let d = x % columns * COLUMNS;
    let row = r % p.rows;
    let h = r / p.rows % p.heads;
    let b = r / p.rows / p.heads;

    var m = LOWEST;
    for (var s = 0u; s < p.splits; s++) {
        let found = statistics(s, r);
        if found.y > 0.0 {
            m = max(m, found.x);
        }
    }
    var l = 0.0;
    var acc = vec2<f32>();
    for (var s = 0u; s < p.splits; s++) {
        let found = statistics(s, r);
        if found.y > 0.0 {
            let keep = exp(found.x - m);
            l += keep * found.y;
            // @unroll c COLUMNS
            if d + /*c*/0u < p.dv {
                acc[/*c*/0u] += keep * part[(s * p.all_rows + r) * p.dv + d + /*c*/0u];
            }
            // @end
        }
    }
    if d < p.dv {
        let out_row = p.out_offset + b * p.out_b + h * p.out_h + row * p.out_t;
        write(out_row, d, p.out_d, select(vec2<f32>(), acc / l, l > 0.0));
    }
    // @region LSE
    if d == 0u {
        lse[b * p.lse_b + h * p.lse_h + row * p.lse_t] = select(LOWEST, m + log(l), l > 0.0);
    }
    // @end
}
