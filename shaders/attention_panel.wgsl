// Attention, panel: for adapters that run on a CPU. A subgroup holds a panel of C·LANES keys and values in registers, and
// walks over the query rows with it.
//
//     s = q·Kᵀ (lanes are keys), p = exp(s − m), O ← exp(m before − m)·O + p·V (lanes are columns of v), out = O / l
//
// The same sums as in "FlashAttention-2" (Dao, 2023) with the loops turned round: on llvmpipe a load takes tens of
// instructions whatever its address, and a broadcast within the subgroup one. So what is used most, keys and values, is
// loaded once and stays, and q and p are broadcast. O of a row lies in `out` between two panels.
//
// Measured on llvmpipe (Mesa 22.3, LLVM 15, two threads of a Xeon), CPU time, all threads together:
//
//     b1 h8 256×256 d64       6.2 ms, 22 GFLOP/s of a thread     tiled 33.5 ms, split_kv 82 ms, plain 112 ms
//       causal, bias, softcap 3.4, 7.6, 6.6 ms                   tiled 21.8, 36.4, 33.2 ms
//     b2 h8 512×512 d64       43 ms, 25 GFLOP/s of a thread      tiled 252 ms
//     b4 h8 1×2048 d64        14.7 ms                            tiled 254 ms, split_kv 137 ms
//     1×1 2048×2048 d16       16 ms                              tiled 105 ms, split_kv 317 ms
//     b64 h4 8×8 d16          1.1 ms                             tiled 17 ms, plain 1.9 ms
//
// SwiftShader (4 lanes), the first and the fourth: 65 and 54 ms, tiled 91 and 693 ms. What was tried:
// - elements loaded one by one: a third slower than in vec4s: a load is a loop over the lanes.
// - C = 1, 2, 3, 4, 8 at D = 32: 9.7, 5.7, 4.4, 3.5, 2.7 ms: O is read and written for each panel. At D = 64, C = 6 and 8 take
//   0.93 and 0.83 of the time of 4 (0.89 and 0.83 with Mesa 26), and 3.2 and 4.7 s to compile.
// - compiling takes 3 to 6 ms for each product in the text, C·(D + Dv) of them: 0.6 s at D = 16, 1.8 s at D = 64, 3 s at
//   D = 128, 3.5 s at D = 256, where COLUMN_PARTS halves the text. One array for the whole panel takes 3 times as long
//   (each user of an array is compared with each other), m and l in arrays that are indexed between the products twice.
// - a parameter that is read within a loop is loaded within the loop, for each lane: so all of them are read before.
// - subgroupMax and subgroupAdd are loops over the lanes, 21 and 17 ns; three shuffles and what they join take 5: 6 % of all.
// - scores in two chains of sums, elements of `out` not read again, exp left out: 1 % each. What remains is multiplications,
//   which take twice as long as on registers alone (a third of them is broadcasts), and the loads of q and out.
// - `continue` on a uniform condition saves nothing, all instructions run, masked: so loops have exact bounds.
//
// llvmpipe leaves loops after 65,535 rounds in all; the host bounds the rows of a tile by that, and splits longer keys over
// workgroups (region SPLIT), whose parts attention_merge.wgsl joins.

enable subgroups;

const LANES: u32 = 8u; // @slot LANES: invocations of a subgroup, and of a workgroup
const HALVINGS: u32 = 3u; // @slot HALVINGS: log2 of LANES
const C: u32 = 4u; // @slot C: keys of a panel, over LANES
const D4: u32 = 16u; // @slot D4: vec4s of a row of q; 4·D4 ≥ D
const DN: u32 = 8u; // @slot DN: columns of v of a lane, 4·DV4; LANES·DN·COLUMN_PARTS ≥ Dv
const Q4: u32 = 2u; // @slot Q4: vec4s of a row of q of a lane
const DV4: u32 = 2u; // @slot DV4: vec4s of a row of v of a lane, in one of the parts
const COLUMN_PARTS: u32 = 1u; // @slot COLUMN_PARTS: workgroups that share the columns of v, so that the text stays short
const ROWS: u32 = 256u; // most rows of a tile
const BLOCK: u32 = LANES * C;

const_assert DN == 4u * DV4 && Q4 * LANES >= D4 && ROWS % LANES == 0u;

alias q_elem = f32; // @slot q_elem: f32 or vec4<f32>; u32 for two narrow elements, vec2<u32> for four
alias k_elem = f32; // @slot k_elem: likewise
alias v_elem = f32; // @slot v_elem: likewise
alias bias_elem = f32; // @slot bias_elem: f32, or u32 for two narrow elements
alias out_elem = f32; // @slot out_elem: f32 or vec4<f32>; SPLIT: f32

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

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<q_elem>; // (B, Hq, Tq, D); packed (ΣTq, Hq, D)
@group(0) @binding(2) var<storage, read> k: array<k_elem>; // (B, Hkv, Tk, D); packed (ΣTk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<v_elem>; // (B, Hkv, Tk, Dv); packed (ΣTk, Hkv, Dv)
// @region MASK
@group(0) @binding(4) var<storage, read> mask: array<u32>; // broadcasts to (B, Hq, Tq, Tk), four to a word
// @end
// @region BIAS
@group(0) @binding(5) var<storage, read> bias: array<bias_elem>; // broadcasts to (B, Hq, Tq, Tk)
// @end
// @region SIDE
@group(0) @binding(6) var<storage, read> items: array<u32>; // (records, 8) of attention_items.wgsl, then slopes (Hq)
// @end
// @region PAGED
@group(0) @binding(7) var<storage, read> block_table: array<i32>; // (B, P): the pages of each item
// @end
// @region SCORE_TABLE
@group(0) @binding(8) var<storage, read> score_values: array<f32>; // of any shape
// @end
// @region MASK_TABLE
@group(0) @binding(9) var<storage, read> mask_values: array<f32>; // of any shape
// @end
@group(0) @binding(10) var<storage, read_write> out: array<out_elem>; // (B, Hq, Tq, Dv); packed (ΣTq, Hq, Dv)
// @region LSE
@group(0) @binding(11) var<storage, read_write> lse: array<f32>; // (B, Hq, Tq); packed (ΣTq, Hq)
// @end

// @slot q_four: four elements of a row of q, from column d.x on; d is held below D
fn q_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> { let at = row + d * step; return vec4<f32>(q[at.x], q[at.y], q[at.z], q[at.w]); }

// @slot k_four: four elements of a row of k
fn k_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> { let at = row + d * step; return vec4<f32>(k[at.x], k[at.y], k[at.z], k[at.w]); }

// @slot v_four: four elements of a row of v
fn v_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> { let at = row + d * step; return vec4<f32>(v[at.x], v[at.y], v[at.z], v[at.w]); }

// @slot out_four: columns d to d + 4 of a row of out, as far as there are
fn out_four(row: u32, d: u32, step: u32, width: u32) -> vec4<f32> { let at = row + d * step; var four = vec4<f32>(); if d < width { four.x = out[at]; } if d + 1u < width { four.y = out[at + step]; } if d + 2u < width { four.z = out[at + 2u * step]; } if d + 3u < width { four.w = out[at + 3u * step]; } return four; }

// @slot write_four: writes columns d to d + 4 of a row of out, as far as there are
fn write_four(row: u32, d: u32, step: u32, width: u32, four: vec4<f32>) { let at = row + d * step; if d < width { out[at] = four.x; } if d + 1u < width { out[at + step] = four.y; } if d + 2u < width { out[at + 2u * step] = four.z; } if d + 3u < width { out[at + 3u * step] = four.w; } }

// @region BIAS
// @slot bias_at: an element of the bias
fn bias_at(i: u32) -> f32 { return bias[i]; }
// @end

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

// A score, and whether its key is seen. The value of a key that is not seen means nothing.
struct Score {
    value: f32,
    seen: bool,
}

// The score of key j, from dot = q_i · k_j.
fn score_of(head: Head, query: Query, j: i32, dot: f32) -> Score {
    var seen = j >= query.first && j < query.end;
    var value = dot * head.scale;
    // @region SOFTCAP
    value = head.cap * tanh_of(value);
    // @end
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
        let added = bias_at(query.bias + u32(j) * head.bias_j);
        seen = bitcast<u32>(added) != 0xff800000u;
        value += select(0.0, added, seen);
    }
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

// Columns of q, k or v of which this lane loads four, vec4 number x of a row; all are below `width`.
fn columns(x: u32, width: u32) -> vec4<u32> {
    return min(vec4<u32>(4u * x) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(width - 1u));
}

// The largest of all lanes, and their sum, on every lane.
fn across_max(x: f32) -> f32 {
    var most = x;
    // @unroll s HALVINGS
    most = max(most, subgroupShuffleXor(most, 1u << /*s*/0u));
    // @end
    return most;
}

fn across_sum(x: f32) -> f32 {
    var sum = x;
    // @unroll s HALVINGS
    sum += subgroupShuffleXor(sum, 1u << /*s*/0u);
    // @end
    return sum;
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let w = workgroup.x + workgroup.y * grid.x;
    if w >= p.workgroups {
        return;
    }
    let place = place_of(w / COLUMN_PARTS);
    // The first vec4 of v and out of this part; the first part writes what rows have once.
    let v_first = w % COLUMN_PARTS * DV4 * LANES;
    let writes_row = lane == 0u && v_first == 0u;
    let item = place.item;
    let b = place.b;
    let keys = keys_of(place);
    let span = p.span;
    if place.first >= item.rows * span {
        return;
    }
    let rows_end = min(place.first + p.tile_rows, item.rows * span);

    let width = p.d;
    let q_head = p.q_offset + b * p.q_b + item.q_start * p.q_t;
    let q_h = p.q_h;
    let q_t = p.q_t;
    let q_d = p.q_d;
    let k_head = p.k_offset + b * p.k_b + place.h / p.group * p.k_h + item.k_start * p.k_t;
    let k_t = p.k_t;
    let k_d = p.k_d;
    let v_width = p.dv;
    let v_head = p.v_offset + b * p.v_b + place.h / p.group * p.v_h + item.k_start * p.v_t;
    let v_t = p.v_t;
    let v_d = p.v_d;
    let k_page = p.k_page;
    let v_page = p.v_page;
    let pages = pages_of(b);
    var out_head = p.out_offset + b * p.out_b + item.q_start * p.out_t;
    var out_h = p.out_h;
    var out_t = p.out_t;
    var out_d = p.out_d;
    // @region SPLIT
    // Rows are numbered (B, Hq, Tq), packed (Hq, ΣTq): there lse_b is 0.
    let part_head = place.split * p.all_rows + b * p.lse_b + item.q_start;
    out_head = part_head * v_width;
    out_h = p.rows * v_width;
    out_t = v_width;
    out_d = 1u;
    // @end
    // @region LSE
    let lse_head = b * p.lse_b + item.q_start * p.lse_t;
    let lse_h = p.lse_h;
    let lse_t = p.lse_t;
    // @end
    let head = head_of(b, place.h);

    // Column d of the keys c·LANES + lane, and columns n of all values.
    // @unroll c C
    var k_c0: array<f32, 4u * D4>;
    // @end
    // @unroll n DN
    var v_n0: array<f32, BLOCK>;
    // @end
    // Statistics of LANES rows together.
    var m_rows: array<f32, ROWS / LANES>;
    var l_rows: array<f32, ROWS / LANES>;
    for (var x = 0u; x * LANES < rows_end - place.first; x++) {
        m_rows[x] = LOWEST;
    }

    for (var j0 = keys.first; j0 < keys.end; j0 += BLOCK) {
        // @unroll c C
        let k_row_c0 = key_row(pages, k_head, min(j0 + /*c*/0u * LANES + lane, keys.end - 1u), k_t, k_page);
        // @end
        for (var d = 0u; d < width; d += 4u) {
            let d_four = min(vec4<u32>(d) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(width - 1u));
            // @unroll c C
            let four_c0 = k_four(k_row_c0, d_four, k_d);
            // @end
            // Not a constant, or else the driver unrolls the loop. What lies past D stays 0.
            let real = min(4u, width - d);
            for (var e = 0u; e < real; e++) {
                // @unroll c C
                k_c0[d + e] = four_c0[e];
                // @end
            }
        }
        for (var j = 0u; j < min(BLOCK, keys.end - j0); j++) {
            let row = key_row(pages, v_head, j0 + j, v_t, v_page);
            var four: array<vec4<f32>, DV4>;
            // @unroll g DV4
            four[/*g*/0u] = v_four(row, columns(v_first + /*g*/0u * LANES + lane, v_width), v_d);
            // @end
            // @unroll n DN
            v_n0[j] = four[/*n*/0u / 4u][/*n*/0u % 4u];
            // @end
        }

        // The rows that see any of these keys: i + hi ≥ j0 and i + lo < j0 + BLOCK.
        let i_first = min(u32(max(0, i32(j0) - item.hi)), item.rows);
        let i_end = u32(clamp(i32(j0 + BLOCK) - item.lo, 0, item.q_len));
        let x_first = max(place.first, i_first * span);
        let x_end = min(rows_end, i_end * span);
        for (var x0 = place.first + (x_first - place.first) / LANES * LANES; x0 < x_end; x0 += LANES) {
            let rows = (x0 - place.first) / LANES;
            var m_lanes = m_rows[rows];
            var l_lanes = l_rows[rows];
            let x_from = max(x0, x_first);
            var i = x_from / span;
            var h = place.h + x_from % span;
            for (var x = x_from; x < min(x0 + LANES, x_end); x++) {
                // @region SPANS
                let head = head_of(b, h);
                // @end
                var query = query_of(item, head, i);
                // @region SPLIT
                query.end = min(query.end, i32(keys.end));
                // @end
                let q_row = q_head + h * q_h + i * q_t;
                var q_i: array<vec4<f32>, Q4>;
                // @unroll g Q4
                q_i[/*g*/0u] = q_four(q_row, columns(/*g*/0u * LANES + lane, width), q_d);
                // @end
                // @unroll c C
                var s_c0 = 0.0;
                // @end
                // @unroll y D4
                // @unroll e 4
                let q_y0_e0 = subgroupBroadcast(q_i[/*y*/0u / LANES][/*e*/0u], /*y*/0u % LANES);
                // @unroll c C
                s_c0 += q_y0_e0 * k_c0[4u * /*y*/0u + /*e*/0u];
                // @end
                // @end
                // @end

                let m_old = subgroupShuffle(m_lanes, x - x0);
                var m_lane = m_old;
                // @unroll c C
                let score_c0 = score_of(head, query, i32(j0 + /*c*/0u * LANES + lane), s_c0);
                m_lane = max(m_lane, select(LOWEST, score_c0.value, score_c0.seen));
                // @end
                let m_new = across_max(m_lane);
                let keep = exp(m_old - m_new);
                var l_lane = 0.0;
                // @unroll c C
                let p_c0 = select(0.0, exp(score_c0.value - m_new), score_c0.seen);
                l_lane += p_c0;
                // @end
                let l_new = subgroupShuffle(l_lanes, x - x0) * keep + across_sum(l_lane);
                m_lanes = select(m_lanes, m_new, lane == x - x0);
                l_lanes = select(l_lanes, l_new, lane == x - x0);

                // The first panel that a row sees here finds nothing in out, the last one divides.
                let out_row = out_head + h * out_h + i * out_t;
                var acc: array<f32, DN>;
                if j0 > keys.first && query.first < i32(j0) {
                    // @unroll g DV4
                    let o_g0 = out_four(out_row, 4u * (v_first + /*g*/0u * LANES + lane), out_d, v_width);
                    // @unroll e 4
                    acc[4u * /*g*/0u + /*e*/0u] = o_g0[/*e*/0u] * keep;
                    // @end
                    // @end
                }
                // @unroll c C
                // @unroll l LANES
                let p_c0_l0 = subgroupBroadcast(p_c0, /*l*/0u);
                // @unroll n DN
                acc[/*n*/0u] += p_c0_l0 * v_n0[/*c*/0u * LANES + /*l*/0u];
                // @end
                // @end
                // @end
                // @region !SPLIT
                if i32(j0 + BLOCK) >= query.end {
                    // @unroll n DN
                    acc[/*n*/0u] = select(0.0, acc[/*n*/0u] / l_new, l_new > 0.0);
                    // @end
                    // @region LSE
                    if writes_row {
                        lse[lse_head + h * lse_h + i * lse_t] = select(LOWEST, m_new + log(l_new), l_new > 0.0);
                    }
                    // @end
                }
                // @end
                // @unroll g DV4
                write_four(out_row, 4u * (v_first + /*g*/0u * LANES + lane), out_d, v_width, vec4<f32>(acc[4u * /*g*/0u], acc[4u * /*g*/0u + 1u], acc[4u * /*g*/0u + 2u], acc[4u * /*g*/0u + 3u]));
                // @end
                let last = h + 1u == place.h + span;
                i += u32(last);
                h = select(h + 1u, place.h, last);
            }
            m_rows[rows] = m_lanes;
            l_rows[rows] = l_lanes;
        }
    }

    // @region SPLIT
    let part_stats = p.splits * p.all_rows * v_width;
    for (var x0 = place.first; x0 < rows_end; x0 += LANES) {
        let x = x0 + lane;
        if x < rows_end && v_first == 0u {
            let at = part_stats + 2u * (part_head + (place.h + x % span) * p.rows + x / span);
            out[at] = m_rows[(x0 - place.first) / LANES];
            out[at + 1u] = l_rows[(x0 - place.first) / LANES];
        }
    }
    // @end
    // @region !SPLIT
    // Rows that see no key at all.
    for (var x = place.first; x < rows_end; x++) {
        let i = x / span;
        let h = place.h + x % span;
        let query = query_of(item, head, i);
        if query.first >= query.end {
            // @unroll g DV4
            write_four(out_head + h * out_h + i * out_t, 4u * (v_first + /*g*/0u * LANES + lane), out_d, v_width, vec4<f32>());
            // @end
            // @region LSE
            if writes_row {
                lse[lse_head + h * lse_h + i * lse_t] = LOWEST;
            }
            // @end
        }
    }
    // @end
}
