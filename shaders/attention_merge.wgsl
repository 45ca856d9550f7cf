// Attention, the launch after a split of the keys: joins the parts of each row, in their order.
//
//     m = max_s m_s, l = Σ_s l_s·exp(m_s − m), out = Σ_s O_s·exp(m_s − m) / l, lse = m + log l       over the parts with l_s > 0
//
// "Flash-Decoding for long-context inference", 2023. An invocation takes one element of out.

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

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<f32>; // O (splits, B, Hq, Tq, Dv), then m and l (splits, B, Hq, Tq, 2)
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (B, Hq, Tq, Dv); packed (ΣTq, Hq, Dv)
// @region LSE
@group(0) @binding(3) var<storage, read_write> lse: array<f32>; // (B, Hq, Tq); packed (ΣTq, Hq)
// @end

const WG: u32 = 64u;
const LOWEST: f32 = -3.40282346e+38f;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let w = workgroup.x + workgroup.y * grid.x;
    // A row without elements still has an lse.
    let columns = max(p.dv, 1u);
    let x = w * WG + t;
    if w >= p.workgroups || x >= p.all_rows * columns {
        return;
    }
    let r = x / columns;
    let d = x % columns;
    let row = r % p.rows;
    let h = r / p.rows % p.heads;
    let b = r / p.rows / p.heads;
    let stats = p.splits * p.all_rows * p.dv;

    var m = LOWEST;
    for (var s = 0u; s < p.splits; s++) {
        let at = stats + 2u * (s * p.all_rows + r);
        if part[at + 1u] > 0.0 {
            m = max(m, part[at]);
        }
    }
    var l = 0.0;
    var acc = 0.0;
    for (var s = 0u; s < p.splits; s++) {
        let at = stats + 2u * (s * p.all_rows + r);
        if part[at + 1u] > 0.0 {
            let keep = exp(part[at] - m);
            l += keep * part[at + 1u];
            if d < p.dv {
                acc += keep * part[(s * p.all_rows + r) * p.dv + d];
            }
        }
    }
    if d < p.dv {
        out[p.out_offset + b * p.out_b + h * p.out_h + row * p.out_t + d * p.out_d] = select(0.0, acc / l, l > 0.0);
    }
    // @region LSE
    if d == 0u {
        lse[b * p.lse_b + h * p.lse_h + row * p.lse_t] = select(LOWEST, m + log(l), l > 0.0);
    }
    // @end
}
