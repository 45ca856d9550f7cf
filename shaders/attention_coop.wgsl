enable f16;
enable subgroups;
enable wgpu_cooperative_matrix;

// Attention of f16 q, k and v, on the units that GPUs have for small matrices: subgroups multiply matrices of S by S elements
// with f32 sums (KHR_cooperative_matrix, simdgroup_matrix). Native only: browsers have no such extension yet.
//
//     S = Q·Kᵀ, P_ij = exp(s_ij − m_i) in f16, l_i ← l_i·keep_i + Σ_j P_ij, O ← keep_i·O + P·V, out = O / l
//
// with keep_i = exp(m_i before − m_i after). Dao, "FlashAttention-2", 2023.
//
// A workgroup takes BR query rows and BC keys at a time. It has SM by SN subgroups: SM share out the rows, SN the keys of S and
// then the columns of O. Rows of q and sums of O stay in the registers of a subgroup, as matrices; k and v take turns in one
// place of workgroup memory, and the next of them is on its way from memory while this one is multiplied. No element of
// such a matrix can be touched, so S goes through workgroup memory to where PARTS neighbouring invocations turn a row of it
// into weights, with every mask, modifier and statistic in f32, and the weights go back as f16.
//
// Rows of O can't be scaled in registers either. So m_i is not always the maximum: it stays until a score is more than GROWTH
// above it, and only then O goes through workgroup memory as well (as in "FlashAttention-4", 2026). Any m_i gives the same
// result; this one is met in the first tiles, then hardly ever.
//
// Error: weights are rounded to f16, each by at most 2⁻¹¹ of itself, so that out is off by at most 2⁻¹¹·max|v|, as much as the
// rounding of an f16 result of that size; l and lse are of the weights before. Weights are at most exp(GROWTH), and stored
// UP times as large, as far as f16 reaches: a weight below 2⁻²⁴ is off by at most 2⁻³⁵, 65,536 of them together by 2⁻¹⁹. The
// conversion to f16 has to take the nearest, as GPUs do; one that truncates would double the 2⁻¹¹.
//
// Few query rows (decoding): then one subgroup's rows are all (SM = 1), heads that share a key head lie in one tile, and keys
// are split over workgroups (region SPLIT) as in attention_tiled.wgsl. Tiles that a mask hides are skipped likewise.
//
// What limits it, by count: for a tile of 64 rows, 64 keys and D = 128 the units of an H200 take some 800 cycles, reading
// their operands from workgroup memory 1000, S and P on their way through it 400, exp 250. Not yet measured on a GPU. On
// lavapipe (Mesa 26.2, which has 8x8) it is several times slower than attention_panel.wgsl: for tests of its correctness.
//
// Not covered by a specification: see matmul_coop.wgsl on workgroup memory between barriers. Subgroups must have exactly
// LANES invocations, always.
//
// Trusted: rows, keys and columns in workgroup memory are below the constants that size the arrays (const_assert, and the
// tests before the stores), since there are SM·SN subgroups; storage indices are below the sizes and lengths that the host, or
// attention_items.wgsl, has checked: `min` sees to it where a tile hangs over. Loops count u32s up to bounds below 2³¹.

const S: u32 = 16u; // @slot S: rows and columns of a cooperative matrix
const LANES: u32 = 32u; // @slot LANES: invocations of a subgroup, always
const SM: u32 = 4u; // @slot SM: subgroups along the query rows
const SN: u32 = 1u; // @slot SN: subgroups along the keys of S, and the columns of O
const GROUPS: u32 = 4u; // @slot GROUPS: SM·SN
const TM: u32 = 1u; // @slot TM: matrices of a subgroup along the query rows
const BC: u32 = 64u; // @slot BC: keys at a time
const TB: u32 = 4u; // @slot TB: matrices along these keys
const TC: u32 = 4u; // @slot TC: those of them that a subgroup has of S
const TK: u32 = 4u; // @slot TK: matrices along the columns of q and k
const TN: u32 = 4u; // @slot TN: matrices of a subgroup along the columns of v
const NQ: u32 = 8u; // @slot NQ: quads of a row of S that an invocation turns into weights
const LK: u32 = 8u; // @slot LK: quads of k that an invocation stages
const LV: u32 = 8u; // @slot LV: quads of v that an invocation stages
const STAGE: u32 = 1152u; // @slot STAGE: quads of staged q, k or v
const BR: u32 = SM * TM * S;
const WG: u32 = GROUPS * LANES;
// Invocations of a row of S.
const PARTS: u32 = WG / BR;
// Quads of a row, and two of padding, which keep rows aligned to 16 bytes and in different banks.
const QUADS_K: u32 = TK * S / 4u;
const PITCH_K: u32 = QUADS_K + 2u;
const QUADS_V: u32 = SN * TN * S / 4u;
const PITCH_V: u32 = QUADS_V + 2u;
const PITCH_S: u32 = BC / 4u + 2u;
const QUADS_S: u32 = S / 4u;

const_assert GROUPS == SM * SN && TB * S == BC && TC * SN == TB && PARTS * BR == WG && NQ * PARTS * 4u == BC && LANES % PARTS == 0u;
const_assert LK * WG >= BC * QUADS_K && WG * (LK - 1u) < BC * QUADS_K;
const_assert LV * WG >= BC * QUADS_V && WG * (LV - 1u) < BC * QUADS_V;
const_assert STAGE >= BC * PITCH_K && STAGE >= SM * S * PITCH_K && STAGE >= BC * PITCH_V;

// How far a score may be above m_i, and by how much weights are larger in f16; exp(GROWTH)·UP is less than 65504.
const GROWTH: f32 = 4.0;
const UP: f32 = 1024.0;

// [block attention_parameters]
struct Params {
    // Workgroups in all.
    workgroups: u32,
    // Tiles of rows of one head (or of `span` heads), of one batch item or of all packed sequences.
    tiles: u32,
    // Rows of a tile.
    tile_rows: u32,
    // Ranges that the keys of a tile are split into, a workgroup each.
    splits: u32,
    // Hq
    heads: u32,
    // Query heads that share a key head, Hq / Hkv, and those of them that share a tile: 1 or all.
    group: u32,
    span: u32,
    // Tq, packed ΣTq; and rows of all heads of all items.
    rows: u32,
    all_rows: u32,
    // Records in `items`.
    records: u32,
    // D, Dv
    d: u32,
    dv: u32,
    // s = scale · q·k, or cap · tanh(scale · q·k)
    scale: f32,
    cap: f32,
    // The one record of all batch items, if there is no `items`; see `Item`.
    k_end: i32,
    lo: i32,
    hi: i32,
    offset: i32,
    // First element, and steps of the axes (B, H, T, D).
    q_offset: u32,
    q_b: u32,
    q_h: u32,
    q_t: u32,
    q_d: u32,
    k_offset: u32,
    k_b: u32,
    k_h: u32,
    k_t: u32,
    k_d: u32,
    v_offset: u32,
    v_b: u32,
    v_h: u32,
    v_t: u32,
    v_d: u32,
    out_offset: u32,
    out_b: u32,
    out_h: u32,
    out_t: u32,
    out_d: u32,
    lse_b: u32,
    lse_h: u32,
    lse_t: u32,
    // First element, and steps of (B, Hq, Tq, Tk); 0 where they broadcast.
    mask_offset: u32,
    mask_b: u32,
    mask_h: u32,
    mask_i: u32,
    mask_j: u32,
    bias_offset: u32,
    bias_b: u32,
    bias_h: u32,
    bias_i: u32,
    bias_j: u32,
    // First slope in `items`, and the step between heads.
    slopes_at: u32,
    slopes_step: u32,
    // The last elements of the tables of functions.
    score_last: i32,
    mask_last: i32,
    // Pages: first entry of the table, its steps of (B, P); rows of a page, the last page, and the steps between pages.
    table_offset: u32,
    table_b: u32,
    table_n: u32,
    page_rows: u32,
    last_page: i32,
    k_page: u32,
    v_page: u32,
    // Steps of `mask_tiles`, (B, Hq, row tiles).
    tiles_b: u32,
    tiles_h: u32,
    tiles_i: u32,
}
// [end]

alias q_elem = f16; // @slot q_elem: f16, or vec4<f16>
alias k_elem = f16; // @slot k_elem: likewise
alias v_elem = f16; // @slot v_elem: likewise
alias bias_elem = f32; // @slot bias_elem: f32, or u32 for two narrow elements
alias out_elem = f32; // @slot out_elem: f32 or vec4<f32>; u32 for two narrow elements, vec2<u32> for four; SPLIT: f32
alias mat_a = coop_mat16x16<f16, A>; // @slot mat_a: of S x S
alias mat_b = coop_mat16x16<f16, B>; // @slot mat_b: of S x S
alias mat_c = coop_mat16x16<f32, C>; // @slot mat_c: of S x S

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<q_elem>; // (B, Hq, Tq, D); packed (ΣTq, Hq, D)
@group(0) @binding(2) var<storage, read> k: array<k_elem>; // (B, Hkv, Tk, D); packed (ΣTk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<v_elem>; // (B, Hkv, Tk, Dv); packed (ΣTk, Hkv, Dv)
// @region MASK
@group(0) @binding(4) var<storage, read> mask: array<u32>; // broadcasts to (B, Hq, Tq, Tk), four to a word
// @end
// @region MASK_TILES
@group(0) @binding(5) var<storage, read> mask_tiles: array<u32>; // (B, Hq, row tiles, key tiles) of attention_tiles.wgsl
// @end
// @region BIAS
@group(0) @binding(6) var<storage, read> bias: array<bias_elem>; // broadcasts to (B, Hq, Tq, Tk)
// @end
// @region SIDE
@group(0) @binding(7) var<storage, read> items: array<u32>; // (records, 8) of attention_items.wgsl, then slopes (Hq)
// @end
// @region PAGED
@group(0) @binding(8) var<storage, read> block_table: array<i32>; // (B, P): the pages of each item
// @end
// @region SCORE_TABLE
@group(0) @binding(9) var<storage, read> score_values: array<f32>; // of any shape
// @end
// @region MASK_TABLE
@group(0) @binding(10) var<storage, read> mask_values: array<f32>; // of any shape
// @end
// (B, Hq, Tq, Dv); packed (ΣTq, Hq, Dv); SPLIT: O (splits, B, Hq, Tq, Dv), then m and l (splits, B, Hq, Tq, 2)
@group(0) @binding(11) var<storage, read_write> out: array<out_elem>;
// @region LSE
@group(0) @binding(12) var<storage, read_write> lse: array<f32>; // (B, Hq, Tq); packed (ΣTq, Hq)
// @end

// @slot q_four: four elements of a row of q, from column d.x on; d is held below D
fn q_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f16> { let at = row + d * step; return vec4<f16>(q[at.x], q[at.y], q[at.z], q[at.w]); }

// @slot k_four: four elements of a row of k
fn k_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f16> { let at = row + d * step; return vec4<f16>(k[at.x], k[at.y], k[at.z], k[at.w]); }

// @slot v_four: four elements of a row of v
fn v_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f16> { let at = row + d * step; return vec4<f16>(v[at.x], v[at.y], v[at.z], v[at.w]); }

// @region BIAS
// @slot bias_at: an element of the bias
fn bias_at(i: u32) -> f32 { return bias[i]; }
// @end

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

// @slot write_four: writes columns d to d + 4 of a row of out, as far as there are
fn write_four(row: u32, d: u32, step: u32, width: u32, four: vec4<f32>) { let at = row + d * step; if d < width { out[at] = four.x; } if d + 1u < width { out[at + step] = four.y; } if d + 2u < width { out[at + 2u * step] = four.z; } if d + 3u < width { out[at + 3u * step] = four.w; } }

// [block attention_functions]
// Functions of the user's; what they are given is said in src/graph/function.rs. A table is read at the nearest index.
// @region SCORE_TABLE
fn score_table(index: i32) -> f32 {
    return score_values[u32(clamp(index, 0, p.score_last))];
}
// @end
// @region MASK_TABLE
fn mask_table(index: i32) -> f32 {
    return mask_values[u32(clamp(index, 0, p.mask_last))];
}
// @end
// @region SCORE_MOD
// @slot score_mod: what becomes of the score of a key that is seen
fn score_mod(score: f32, b: i32, h: i32, h_kv: i32, i: i32, j: i32, position: i32, q_len: i32, k_len: i32) -> f32 { return score; }
// @end
// @region MASK_MOD
// @slot mask_mod: whether the key is seen
fn mask_mod(b: i32, h: i32, h_kv: i32, i: i32, j: i32, position: i32, q_len: i32, k_len: i32) -> bool { return true; }
// @end
// [end]

// [block attention_rows]
// Where the pages of item b begin in the table.
fn pages_of(b: u32) -> u32 {
    var at = 0u;
    // @region PAGED
    at = p.table_offset + b * p.table_b;
    // @region PACKED
    // Record 1 is sequence 0.
    at -= p.table_b;
    // @end
    // @end
    return at;
}

// Where the row of key j begins in k or v: rows are `step` apart from `first` on; in pages, which are `page_step` apart.
fn key_row(pages: u32, first: u32, j: u32, step: u32, page_step: u32) -> u32 {
    var row = first + j * step;
    // @region PAGED
    let page = clamp(block_table[pages + j / p.page_rows * p.table_n], 0, p.last_page);
    row = first + u32(page) * page_step + j % p.page_rows * step;
    // @end
    return row;
}
// [end]

// [block attention_scores]
const LOWEST: f32 = -3.40282346e+38f;

// A batch item or packed sequence: `rows` rows of q and out from `q_start`, keys from row `k_start`. Query i < q_len
// sees the keys from max(0, i + lo) to before min(k_end, i + hi + 1), and stands at i + offset among them.
struct Item {
    q_start: u32,
    rows: u32,
    q_len: i32,
    k_start: u32,
    k_end: i32,
    lo: i32,
    hi: i32,
    offset: i32,
}

fn item_of(b: u32) -> Item {
    var item = Item(0u, p.rows, i32(p.rows), 0u, p.k_end, p.lo, p.hi, p.offset);
    // @region ITEMS
    let at = b * 8u;
    item.q_start = items[at];
    item.rows = items[at + 1u];
    item.q_len = i32(items[at + 2u]);
    item.k_start = items[at + 3u];
    item.k_end = i32(items[at + 4u]);
    item.lo = i32(items[at + 5u]);
    item.hi = i32(items[at + 6u]);
    item.offset = i32(items[at + 7u]);
    // @end
    return item;
}

// What the scores of one head need, read once: some adapters pay for each use of a parameter in a loop.
struct Head {
    scale: f32,
    cap: f32,
    slope: f32,
    // First element of mask and bias, and the steps between queries and keys.
    mask: u32,
    mask_i: u32,
    mask_j: u32,
    bias: u32,
    bias_i: u32,
    bias_j: u32,
    // @region FUNCTIONS
    b: i32,
    h: i32,
    h_kv: i32,
    // @end
}

fn head_of(b: u32, h: u32) -> Head {
    var head: Head;
    head.scale = p.scale;
    // @region SOFTCAP
    head.cap = p.cap;
    // @end
    // @region SLOPES
    head.slope = bitcast<f32>(items[p.slopes_at + h * p.slopes_step]);
    // @end
    // @region MASK
    head.mask = p.mask_offset + b * p.mask_b + h * p.mask_h;
    head.mask_i = p.mask_i;
    head.mask_j = p.mask_j;
    // @end
    // @region BIAS
    head.bias = p.bias_offset + b * p.bias_b + h * p.bias_h;
    head.bias_i = p.bias_i;
    head.bias_j = p.bias_j;
    // @end
    // @region FUNCTIONS
    head.b = i32(b);
    // @region PACKED
    head.b -= 1;
    // @end
    head.h = i32(h);
    head.h_kv = i32(h / p.group);
    // @end
    return head;
}

// Which keys a query sees, from `first` to before `end`, less those that mask or bias hide.
struct Query {
    first: i32,
    end: i32,
    // Where the query stands among the keys.
    position: i32,
    // Where its rows of mask and bias begin.
    mask: u32,
    bias: u32,
    // @region FUNCTIONS
    i: i32,
    q_len: i32,
    k_len: i32,
    // @end
}

fn query_of(item: Item, head: Head, i: u32) -> Query {
    let row = i32(i);
    let end = min(item.k_end, row + item.hi + 1);
    return Query(
        max(0, row + item.lo),
        select(0, end, row < item.q_len),
        row + item.offset,
        head.mask + i * head.mask_i,
        head.bias + i * head.bias_i,
        // @region FUNCTIONS
        row,
        item.q_len,
        item.k_end,
        // @end
    );
}

// tanh, to f32's precision also near 0; exp can't overflow.
fn tanh_of(x: f32) -> f32 {
    let a = min(abs(x), 15.0);
    let x2 = x * x;
    let near = x + x * x2 * (-0.33333333 + x2 * (0.13333333 + x2 * (-0.053968254 + x2 * 0.021869488)));
    let far = sign(x) * (1.0 - 2.0 / (exp(2.0 * a) + 1.0));
    return select(far, near, a < 0.25);
}

// @region MASK_TILES
// Whether the mask hides no key of the tile.
var<private> tile_is_full: bool;
// @end

// Whether a key is seen, as far as mask and bias tell, and its bias.
struct Key {
    seen: bool,
    bias: f32,
}

fn key_of(head: Head, query: Query, j: i32) -> Key {
    var seen = j >= query.first && j < query.end;
    var added = 0.0;
    // @region MASK
    var asks_mask = seen;
    // @region MASK_TILES
    asks_mask = seen && !tile_is_full;
    // @end
    if asks_mask {
        let at = query.mask + u32(j) * head.mask_j;
        seen = ((mask[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu) != 0u;
    }
    // @end
    // @region BIAS
    if seen {
        added = bias_at(query.bias + u32(j) * head.bias_j);
        seen = bitcast<u32>(added) != 0xff800000u;
    }
    // @end
    return Key(seen, added);
}

// A score, and whether its key is seen. The value of a key that is not seen means nothing.
struct Score {
    value: f32,
    seen: bool,
}

// The score of key j, from dot = q_i · k_j.
fn score_of(head: Head, query: Query, j: i32, key: Key, dot: f32) -> Score {
    var seen = key.seen;
    var value = dot * head.scale;
    // @region SOFTCAP
    value = head.cap * tanh_of(value);
    // @end
    // @region BIAS
    value += select(0.0, key.bias, seen);
    // @end
    // @region SLOPES
    value += head.slope * f32(j - query.position);
    // @end
    // @region MASK_MOD
    if seen {
        seen = mask_mod(head.b, head.h, head.h_kv, query.i, j, query.position, query.q_len, query.k_len);
    }
    // @end
    // @region SCORE_MOD
    if seen {
        value = score_mod(value, head.b, head.h, head.h_kv, query.i, j, query.position, query.q_len, query.k_len);
        seen = bitcast<u32>(value) != 0xff800000u;
    }
    // @end
    return Score(value, seen);
}
// [end]

// [block attention_places]
// What a workgroup works on: from row `first` on, of heads h to h + span of item b. Row x of a tile is query x / span of
// head h + x % span.
struct Place {
    item: Item,
    b: u32,
    h: u32,
    first: u32,
    split: u32,
}

// Workgroup w of `p.workgroups`. Tiles with the most keys under a causal mask, the last ones, come first.
fn place_of(w: u32) -> Place {
    let split = w % p.splits;
    let tiles = w / p.splits;
    let spans = tiles / p.tiles;
    var tile = p.tiles - 1u - tiles % p.tiles;
    let h = spans * p.span % p.heads;
    var b = spans * p.span / p.heads;
    // @region PACKED
    // Record b has the tiles from q_start · span / p.tile_rows + b on: always enough, and never one of its neighbours'.
    b = 0u;
    var after = p.records;
    while after - b > 1u {
        let middle = (b + after) / 2u;
        if items[middle * 8u] * p.span / p.tile_rows + middle <= tile {
            b = middle;
        } else {
            after = middle;
        }
    }
    tile -= items[b * 8u] * p.span / p.tile_rows + b;
    // @end
    return Place(item_of(b), b, h, tile * p.tile_rows, split);
}

// Keys from `first` to before `end`.
struct Keys {
    first: u32,
    end: u32,
}

// The keys that this split of the tile reads: its part of those that any row sees, if no mask hides them.
fn keys_of(place: Place) -> Keys {
    let item = place.item;
    let i = i32(place.first / p.span);
    let i_end = min(i32((place.first + p.tile_rows - 1u) / p.span + 1u), item.q_len);
    let first = u32(max(0, i + item.lo));
    let end = u32(select(0, max(0, min(item.k_end, i_end + item.hi)), i < item.q_len));
    let part = (max(end, first) - first + p.splits - 1u) / p.splits;
    return Keys(first + place.split * part, min(end, first + (place.split + 1u) * part));
}
// [end]

var<workgroup> stage: array<vec4<f16>, STAGE>; // q (SM·S, TK·S), then k (BC, TK·S) or v (BC, SN·TN·S)
var<workgroup> sums: array<vec4<f32>, BR * PITCH_S>; // S (BR, BC), or matrices of O, one of each subgroup
var<workgroup> weights: array<vec4<f16>, BR * PITCH_S>; // P (BR, BC), UP times as large
var<workgroup> keep: array<f32, BR>; // by what O shrinks; at the end l
var<workgroup> moved: array<u32, GROUPS>; // whether any row of a subgroup has to shrink

// [block attention_tile_rows]
// A row of the tile: query i of head h, at row `row` of q and out.
struct Row {
    h: u32,
    i: u32,
    row: u32,
    // Whether there is one: the last tile of a sequence is not full.
    real: bool,
}

fn row_of(place: Place, r: u32) -> Row {
    let x = place.first + r;
    let i = x / p.span;
    return Row(place.h + x % p.span, i, place.item.q_start + i, i < place.item.rows);
}

// The first tile of keys from `first` on that the mask does not hide; `at` is the first of this row of tiles.
fn next_tile(at: u32, first: u32, end: u32) -> u32 {
    var j0 = first;
    // @region MASK_TILES
    while j0 < end && (mask_tiles[at + j0 / BC] & 1u) == 0u {
        j0 += BC;
    }
    // @end
    return j0;
}
// [end]

// Four columns of a row of q; 0 where there are none.
fn fetch_q(place: Place, r: u32, quad: u32) -> vec4<f16> {
    let row = row_of(place, r);
    let d = 4u * quad + vec4<u32>(0u, 1u, 2u, 3u);
    var four = vec4<f16>();
    if row.real {
        let at = p.q_offset + place.b * p.q_b + row.h * p.q_h + row.row * p.q_t;
        four = select(four, q_four(at, min(d, vec4<u32>(p.d - 1u)), p.q_d), d < vec4<u32>(p.d));
    }
    return four;
}

// Four columns of key j. Columns and keys past the end repeat the last: q has zeros there, and no query sees them.
fn fetch_k(pages: u32, head: u32, j: u32, end: u32, quad: u32) -> vec4<f16> {
    let d = min(4u * quad + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.d - 1u));
    return k_four(key_row(pages, head, min(j, end - 1u), p.k_t, p.k_page), d, p.k_d);
}

// Four columns of the value of key j, likewise: columns past the end are not written to out.
fn fetch_v(pages: u32, head: u32, j: u32, end: u32, quad: u32) -> vec4<f16> {
    let d = min(4u * quad + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.dv - 1u));
    return v_four(key_row(pages, head, min(j, end - 1u), p.v_t, p.v_page), d, p.v_d);
}

// Four scores, and which of their keys are seen.
struct Scores {
    values: vec4<f32>,
    seen: vec4<bool>,
}

// The scores of keys j to j + 4.
fn scores_of(head: Head, query: Query, j: u32, dots: vec4<f32>) -> Scores {
    var scores: Scores;
    // @unroll e 4
    let j_e0 = i32(j + /*e*/0u);
    let score_e0 = score_of(head, query, j_e0, key_of(head, query, j_e0), dots[/*e*/0u]);
    scores.values[/*e*/0u] = score_e0.value;
    scores.seen[/*e*/0u] = score_e0.seen;
    // @end
    return scores;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let w = workgroup.x + workgroup.y * grid.x;
    if w >= p.workgroups {
        return;
    }
    let place = place_of(w);
    let item = place.item;
    let b = place.b;
    // A tile behind the last row has no keys and writes nothing. To return here is what naga takes for not uniform.
    let k_head = p.k_offset + b * p.k_b + place.h / p.group * p.k_h + item.k_start * p.k_t;
    let v_head = p.v_offset + b * p.v_b + place.h / p.group * p.v_h + item.k_start * p.v_t;
    let keys = keys_of(place);
    let pages = pages_of(b);

    let t = subgroup * LANES + lane;
    // The subgroup's first row, and what it has of keys and columns.
    let m_s = subgroup / SN * TM * S;
    let n_s = subgroup % SN;
    // Where it holds a matrix of O for a while.
    let own = m_s * PITCH_S + n_s * QUADS_S;

    // @unroll m TM
    workgroupBarrier();
    for (var e = t; e < SM * S * QUADS_K; e += WG) {
        let x = e / QUADS_K;
        let r = x / S * TM * S + /*m*/0u * S + x % S;
        stage[x * PITCH_K + e % QUADS_K] = fetch_q(place, r, e % QUADS_K);
    }
    workgroupBarrier();
    // @unroll k TK
    let q_m0_k0 = coopLoadT<mat_a>(&stage[subgroup / SN * S * PITCH_K + /*k*/0u * QUADS_S], PITCH_K);
    // @end
    // @unroll n TN
    var acc_m0_n0 = mat_c();
    // @end
    // @end

    // Row r is turned into weights by PARTS invocations, each of which has every so many quads.
    let r = t / PARTS;
    let part = t % PARTS;
    let row = row_of(place, r);
    let head = head_of(b, row.h);
    var query = query_of(item, head, row.i);
    query.end = min(query.end, i32(keys.end));
    var begun = 0u;
    var m_i = LOWEST;
    // Of the own quads.
    var l_i = 0.0;

    var first = keys.first;
    var tiles_at = 0u;
    // @region !SPLIT
    // Where a tile of a mask begins; nobody sees the keys before.
    first -= first % BC;
    // @end
    // @region MASK_TILES
    tiles_at = b * p.tiles_b + place.h * p.tiles_h + place.first / BR * p.tiles_i;
    // @end
    var j0 = next_tile(tiles_at, first, keys.end);
    // @unroll l LK
    let e_l0 = /*l*/0u * WG + t;
    var next_l0 = vec4<f16>();
    if j0 < keys.end {
        next_l0 = fetch_k(pages, k_head, j0 + e_l0 / QUADS_K, keys.end, e_l0 % QUADS_K);
    }
    // @end
    while j0 < keys.end {
        // @region MASK_TILES
        tile_is_full = mask_tiles[tiles_at + j0 / BC] == 1u;
        // @end
        workgroupBarrier();
        // @unroll l LK
        if e_l0 < BC * QUADS_K {
            stage[e_l0 / QUADS_K * PITCH_K + e_l0 % QUADS_K] = next_l0;
        }
        // @end
        workgroupBarrier();
        // @unroll l LV
        let v_e_l0 = /*l*/0u * WG + t;
        let v_l0 = fetch_v(pages, v_head, j0 + v_e_l0 / QUADS_V, keys.end, v_e_l0 % QUADS_V);
        // @end
        // @unroll m TM
        // @unroll c TC
        var s_m0_c0 = mat_c();
        // @end
        // @end
        // @unroll k TK
        // @unroll c TC
        let k_k0_c0 = coopLoad<mat_b>(&stage[(n_s * TC + /*c*/0u) * S * PITCH_K + /*k*/0u * QUADS_S], PITCH_K);
        // @unroll m TM
        s_m0_c0 = coopMultiplyAdd(q_m0_k0, k_k0_c0, s_m0_c0);
        // @end
        // @end
        // @end
        // @unroll m TM
        // @unroll c TC
        coopStoreT(s_m0_c0, &sums[(m_s + /*m*/0u * S) * PITCH_S + (n_s * TC + /*c*/0u) * QUADS_S], PITCH_S);
        // @end
        // @end
        workgroupBarrier();

        // @unroll l LV
        if v_e_l0 < BC * QUADS_V {
            stage[v_e_l0 / QUADS_V * PITCH_V + v_e_l0 % QUADS_V] = v_l0;
        }
        // @end
        var most = LOWEST;
        var found = 0u;
        // @unroll y NQ
        let x_y0 = part + PARTS * /*y*/0u;
        let scores_y0 = scores_of(head, query, j0 + 4u * x_y0, sums[r * PITCH_S + x_y0]);
        let two_y0 = select(vec4<f32>(LOWEST), scores_y0.values, scores_y0.seen);
        most = max(most, max(max(two_y0.x, two_y0.y), max(two_y0.z, two_y0.w)));
        found |= u32(any(scores_y0.seen));
        // @end
        for (var x = 1u; x < PARTS; x *= 2u) {
            most = max(most, subgroupShuffleXor(most, x));
            found |= subgroupShuffleXor(found, x);
        }
        let rises = begun == 0u || most - m_i > GROWTH;
        let m_new = select(m_i, most, rises);
        let shrink = exp(m_i - m_new);
        let moves = subgroupAny(rises && begun != 0u);
        begun |= found;
        m_i = m_new;
        l_i *= shrink;
        if part == 0u {
            keep[r] = shrink;
        }
        if lane == 0u {
            moved[subgroup] = u32(moves);
        }
        // @unroll y NQ
        let p_y0 = select(vec4<f32>(), exp(scores_y0.values - m_i), scores_y0.seen);
        l_i += p_y0.x + p_y0.y + p_y0.z + p_y0.w;
        weights[r * PITCH_S + x_y0] = vec4<f16>(UP * p_y0);
        // @end
        let moved_all = workgroupUniformLoad(&moved);
        // One expression: naga takes what was in a variable for not uniform.
        let any_moved = 0u
            // @unroll g GROUPS
            | moved_all[/*g*/0u]
            // @end
            ;

        j0 = next_tile(tiles_at, j0 + BC, keys.end);
        if j0 < keys.end {
            // @unroll l LK
            next_l0 = fetch_k(pages, k_head, j0 + e_l0 / QUADS_K, keys.end, e_l0 % QUADS_K);
            // @end
        }
        if any_moved != 0u {
            // @unroll m TM
            // @unroll n TN
            workgroupBarrier();
            coopStoreT(acc_m0_n0, &sums[own], PITCH_S);
            workgroupBarrier();
            for (var e = lane; e < S * QUADS_S; e += LANES) {
                sums[own + e / QUADS_S * PITCH_S + e % QUADS_S] *= keep[m_s + /*m*/0u * S + e / QUADS_S];
            }
            workgroupBarrier();
            acc_m0_n0 = coopLoadT<mat_c>(&sums[own], PITCH_S);
            // @end
            // @end
        }
        // @unroll x TB
        // @unroll m TM
        let p_x0_m0 = coopLoadT<mat_a>(&weights[(m_s + /*m*/0u * S) * PITCH_S + /*x*/0u * QUADS_S], PITCH_S);
        // @end
        // @unroll n TN
        let v_x0_n0 = coopLoadT<mat_b>(&stage[/*x*/0u * S * PITCH_V + (n_s * TN + /*n*/0u) * QUADS_S], PITCH_V);
        // @unroll m TM
        acc_m0_n0 = coopMultiplyAdd(p_x0_m0, v_x0_n0, acc_m0_n0);
        // @end
        // @end
        // @end
    }

    for (var x = 1u; x < PARTS; x *= 2u) {
        l_i += subgroupShuffleXor(l_i, x);
    }
    workgroupBarrier();
    if part == 0u {
        keep[r] = l_i;
        if row.real {
            // @region SPLIT
            // Rows are numbered (B, Hq, Tq), packed (Hq, ΣTq): there lse_b is 0.
            let at = place.split * p.all_rows + b * p.lse_b + row.h * p.rows + row.row;
            out[p.splits * p.all_rows * p.dv + 2u * at] = m_i;
            out[p.splits * p.all_rows * p.dv + 2u * at + 1u] = l_i;
            // @end
            // @region LSE
            lse[b * p.lse_b + row.h * p.lse_h + row.row * p.lse_t] = select(LOWEST, m_i + log(l_i), l_i > 0.0);
            // @end
        }
    }
    // @unroll m TM
    // @unroll n TN
    workgroupBarrier();
    coopStoreT(acc_m0_n0, &sums[own], PITCH_S);
    workgroupBarrier();
    for (var e = lane; e < S * QUADS_S; e += LANES) {
        let at = m_s + /*m*/0u * S + e / QUADS_S;
        let four = sums[own + e / QUADS_S * PITCH_S + e % QUADS_S];
        write_sums(place, at, 4u * ((n_s * TN + /*n*/0u) * QUADS_S + e % QUADS_S), four / UP);
    }
    // @end
    // @end
}

// Columns d to d + 4 of O of row r.
fn write_sums(place: Place, r: u32, d: u32, four: vec4<f32>) {
    let row = row_of(place, r);
    // @region SPLIT
    if row.real {
        let at = (place.split * p.all_rows + place.b * p.lse_b + row.h * p.rows + row.row) * p.dv;
        write_four(at, d, 1u, p.dv, four);
    }
    // @end
    // @region !SPLIT
    if row.real {
        let at = p.out_offset + place.b * p.out_b + row.h * p.out_h + row.row * p.out_t;
        let l = keep[r];
        write_four(at, d, p.out_d, p.dv, select(vec4<f32>(), four / l, l > 0.0));
    }
    // @end
}
