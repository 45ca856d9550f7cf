// Attention, panel: for adapters that run on a CPU. A subgroup holds a panel of C·LANES keys and values in registers, and
// walks over the query rows with it.
//
//     s = q·Kᵀ (lanes are keys), p = exp(s − m), O ← exp(m before − m)·O + p·V (lanes are columns of v), out = O / l
//
// The same sums as in "FlashAttention-2" (Dao, 2023) with the loops turned round: on llvmpipe a load takes tens of
// instructions whatever its address, and a broadcast within the subgroup one. So what is used most, keys and values, is
// loaded once and stays, and q and p are broadcast. O of a row lies in `out` between two panels.
//
// Measured on llvmpipe (two threads of a Xeon), CPU time, all threads together:
//
//                             Mesa 22.3, LLVM 15                 Mesa 26.2, LLVM 22     Mesa 22.3, others
//     b1 h8 256×256 d64       3.85 ms, 35 GFLOP/s of a thread    2.6 ms                 tiled 33.5 ms, split_kv 82 ms
//       causal, bias, softcap 2.5, 4.4, 4.0 ms                   1.7, 2.75, 3.0 ms      tiled 21.8, 36.4, 33.2 ms
//     b2 h8 512×512 d64       33 ms                              22 ms                  tiled 252 ms
//     1×1 2048×2048 d16       14 ms                              13.5 ms                tiled 105 ms, split_kv 317 ms
//     b64 h4 8×8 d16          0.6 ms                             0.4 ms                 tiled 17 ms, plain 1.9 ms
//
// SwiftShader (4 lanes), the first: 74 ms (49 with arrays that loops fill), tiled 91.
//
// What was tried:
// - with LLVM 15 compiling takes as long as there are loads in the text, C·(D + Dv)/8 of eight elements: 0.5 s for 64, 1.4 s
//   for 128, 3 s for 192, 4.7 s for 256; products cost nothing. Eight elements at once, as four words of 64 bits, take a third
//   of the time to compile that twice four take, and as long to run; elements one by one run 1.4 times as long. LLVM 22 compiles
//   in 0.4 s, but takes the words apart again for each row: 1.3 times as long as fours.
// - C = 2, 4, 8, 16: at D = 16 1.9, 1.3, 1.0, 0.8 ms, at D = 64 4.3, 2.8, 2.2, 2.3 ms (b1 h4 256×256), and likewise with LLVM
//   22: O is read and written for each panel.
// - the panel in arrays that loops fill: 3 times as long to compile, one array for all of it 9 times; m and l in arrays that
//   are indexed between the products twice.
// - at D = 256 one workgroup for all columns: 0.9 of the time of two that share them (0.7 with LLVM 22).
// - LLVM moves products to where their sum is used, unless something with a branch of its own, as a load, lies between: sums that
//   were read before the products, and mask and bias after those of q and k, left one column or key after the other, each
//   product waiting for the one before. With LLVM 22 3.35 and 4.4 ms, and 4.3 with `fma`, which is now 0.8 of the time (1.1 to
//   1.2 times with one vec4 of v a lane: too few sums to hide how long each takes).
// - out read between the scores' products and the softmax: 1.0, with LLVM 22 1.5. A row's softmax beside the products of the
//   next row, whose scores the loop carries: 1.0 with both, also with q loaded before.
// - two rows at once: 1.0 to 1.1 times as long with both, and with C = 16 with LLVM 22. q read by all lanes, as matmul's panel
//   reads a (LLVM 22): 1.05.
// - a parameter that is read within a loop is loaded within the loop, for each lane: so all of them are read before.
// - subgroupMax and subgroupAdd are loops over the lanes, 21 and 17 ns; three shuffles and what they join take 5: 6 % of all.
// - scores in two chains of sums, the maximum as a tree or in four chains, no conditions on writes, no division by `span`: 1 to
//   2 % each at the most. Words of eight for few rows with LLVM 22: 1.1.
// - what is left: without the loads of q 0.9 of the time with LLVM 15, without reading or writing `out` 0.95 each, without the
//   three 0.82, without the softmax 0.87, without all of it 0.7; 0.52 are the multiplications at their measured rate. Of samples
//   with LLVM 15 and 22: products 58 and 52 %, softmax 22 and 20 %, the loads of q and out.
// - a loop of its own for rows that see but the first half of a panel's keys: causal 0.96, in quarters 0.94 (LLVM 22: 0.97), 136
//   keys 0.92 and 0.96, for 1.2 to 1.5 times the time to compile. C = 10, 11, 12, 14 at D = 64: 1.0 to 1.2 for 512 keys.
// - `continue` on a uniform condition saves nothing, all instructions run, masked: so loops have exact bounds.
//
// llvmpipe leaves loops after 65,535 rounds in all; the host bounds the rows of a tile by that, and splits longer keys over
// workgroups (region SPLIT), whose parts attention_merge.wgsl joins.

enable subgroups;

const LANES: u32 = 8u; // @slot LANES: invocations of a subgroup, and of a workgroup
const HALVINGS: u32 = 3u; // @slot HALVINGS: log2 of LANES
const C: u32 = 4u; // @slot C: keys of a panel, over LANES
const D4: u32 = 3u; // @slot D4: vec4s of a row of q; 4·D4 ≥ D
const D8: u32 = 1u; // @slot D8: D4 / 2
const DT: u32 = 1u; // @slot DT: D4 % 2
const Q_RUN: u32 = 2u; // @slot Q_RUN: vec4s of a row of q that lie side by side in a lane, 1 or 2
const Q4: u32 = 3u; // @slot Q4: vec4s of a row of q of a lane
const Q8: u32 = 1u; // @slot Q8: Q4 / 2
const QT: u32 = 1u; // @slot QT: Q4 % 2
const DV4: u32 = 3u; // @slot DV4: vec4s of a row of v of a lane, in one of the parts
const DV8: u32 = 1u; // @slot DV8: DV4 / 2
const DVT: u32 = 1u; // @slot DVT: DV4 % 2
const COLUMN_PARTS: u32 = 1u; // @slot COLUMN_PARTS: workgroups that share the columns of v, so that the text stays short
const ROWS: u32 = 256u; // most rows of a tile
const BLOCK: u32 = LANES * C;

const_assert D4 == 2u * D8 + DT && Q4 == 2u * Q8 + QT && DV4 == 2u * DV8 + DVT && Q4 * LANES >= D4 && ROWS % LANES == 0u;

alias q_elem = f32; // @slot q_elem: f32, vec4<f32>, or vec4<u64> for eight; u32 for two narrow elements, vec2<u32>, vec4<u32>
alias k_elem = f32; // @slot k_elem: likewise
alias v_elem = f32; // @slot v_elem: likewise
alias bias_elem = f32; // @slot bias_elem: f32, or u32 for two narrow elements
alias out_elem = f32; // @slot out_elem: f32, vec4<f32>, or vec4<u64> for eight; SPLIT: f32

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

// Eight elements of a row: side by side, which may take one load, or two times four.
struct Pair {
    a: vec4<f32>,
    b: vec4<f32>,
}

// @slot q_four: four elements of a row of q, from column d.x on; d is held below D
fn q_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> { let at = row + d * step; return vec4<f32>(q[at.x], q[at.y], q[at.z], q[at.w]); }

// @slot q_pair: twice four, from columns d.x and e.x on
fn q_pair(row: u32, d: vec4<u32>, e: vec4<u32>, step: u32) -> Pair { return Pair(q_four(row, d, step), q_four(row, e, step)); }

// @slot k_four: four elements of a row of k
fn k_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> { let at = row + d * step; return vec4<f32>(k[at.x], k[at.y], k[at.z], k[at.w]); }

// @slot k_pair: twice four, from columns d.x and e.x on
fn k_pair(row: u32, d: vec4<u32>, e: vec4<u32>, step: u32) -> Pair { return Pair(k_four(row, d, step), k_four(row, e, step)); }

// @slot v_four: four elements of a row of v
fn v_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> { let at = row + d * step; return vec4<f32>(v[at.x], v[at.y], v[at.z], v[at.w]); }

// @slot v_pair: twice four, from columns d.x and e.x on
fn v_pair(row: u32, d: vec4<u32>, e: vec4<u32>, step: u32) -> Pair { return Pair(v_four(row, d, step), v_four(row, e, step)); }

// @slot out_four: columns d to d + 4 of a row of out, as far as there are
fn out_four(row: u32, d: u32, step: u32, width: u32) -> vec4<f32> { let at = row + d * step; var four = vec4<f32>(); if d < width { four.x = out[at]; } if d + 1u < width { four.y = out[at + step]; } if d + 2u < width { four.z = out[at + 2u * step]; } if d + 3u < width { four.w = out[at + 3u * step]; } return four; }

// @slot out_pair: columns d to d + 8
fn out_pair(row: u32, d: u32, step: u32, width: u32) -> Pair { return Pair(out_four(row, d, step, width), out_four(row, d + 4u, step, width)); }

// @slot write_four: writes columns d to d + 4 of a row of out, as far as there are
fn write_four(row: u32, d: u32, step: u32, width: u32, four: vec4<f32>) { let at = row + d * step; if d < width { out[at] = four.x; } if d + 1u < width { out[at + step] = four.y; } if d + 2u < width { out[at + 2u * step] = four.z; } if d + 3u < width { out[at + 3u * step] = four.w; } }

// @slot write_pair: columns d to d + 8
fn write_pair(row: u32, d: u32, step: u32, width: u32, pair: Pair) { write_four(row, d, step, width, pair.a); write_four(row, d + 4u, step, width, pair.b); }

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

// The first column of vec4 number x of a lane, of which `run` lie side by side.
fn column(x: u32, run: u32, lane: u32) -> u32 {
    return 4u * (x / run * run * LANES + run * lane + x % run);
}

// Four columns from `first` on; all are below `width`.
fn columns(first: u32, width: u32) -> vec4<u32> {
    return min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(width - 1u));
}

// What of four columns is below `width`, and zeros.
fn real(four: vec4<f32>, first: u32, width: u32) -> vec4<f32> {
    return select(vec4<f32>(), four, vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(width));
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
    // The first column of v and out of this part; the first part writes what rows have once.
    let v_first = w % COLUMN_PARTS * 4u * DV4 * LANES;
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

    // Statistics of LANES rows together.
    var m_rows: array<f32, ROWS / LANES>;
    var l_rows: array<f32, ROWS / LANES>;
    for (var x = 0u; x * LANES < rows_end - place.first; x++) {
        m_rows[x] = LOWEST;
    }

    for (var j0 = keys.first; j0 < keys.end; j0 += BLOCK) {
        // The panel: C keys of each lane, the last one in place of those that follow it. Values of all lanes are read by columns.
        // @unroll c C
        let j_c0 = min(j0 + lane * C + /*c*/0u, keys.end - 1u);
        let k_row_c0 = key_row(pages, k_head, j_c0, k_t, k_page);
        // @unroll y D8
        let k_c0_y0 = k_pair(k_row_c0, columns(8u * /*y*/0u, width), columns(8u * /*y*/0u + 4u, width), k_d);
        // @end
        let k_c0 = array<vec4<f32>, D4>(
            // @unroll y D8
            k_c0_y0.a,
            real(k_c0_y0.b, 8u * /*y*/0u + 4u, width),
            // @end
            // @unroll t DT
            real(k_four(k_row_c0, columns(8u * D8, width), k_d), 8u * D8, width),
            // @end
        );
        // @end
        // @unroll c C
        let v_row_c0 = key_row(pages, v_head, j_c0, v_t, v_page);
        // @unroll l LANES
        let v_row_c0_l0 = subgroupBroadcast(v_row_c0, /*l*/0u);
        // @unroll g DV8
        let v_c0_l0_g0 = v_pair(v_row_c0_l0, columns(v_first + column(2u * /*g*/0u, 2u, lane), v_width), columns(v_first + column(2u * /*g*/0u + 1u, 2u, lane), v_width), v_d);
        // @end
        let v_c0_l0 = array<vec4<f32>, DV4>(
            // @unroll g DV8
            v_c0_l0_g0.a,
            v_c0_l0_g0.b,
            // @end
            // @unroll t DVT
            v_four(v_row_c0_l0, columns(v_first + column(2u * DV8, 1u, lane), v_width), v_d),
            // @end
        );
        // @end
        // @end

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
                // @unroll g Q8
                let q_g0 = q_pair(q_row, columns(column(2u * /*g*/0u, Q_RUN, lane), width), columns(column(2u * /*g*/0u + 1u, Q_RUN, lane), width), q_d);
                // @end
                let q_i = array<vec4<f32>, Q4>(
                    // @unroll g Q8
                    q_g0.a,
                    q_g0.b,
                    // @end
                    // @unroll t QT
                    q_four(q_row, columns(column(2u * Q8, Q_RUN, lane), width), q_d),
                    // @end
                );
                // What mask and bias say is read before the products: LLVM would take those of one key after the other.
                // @unroll c C
                let key_c0 = key_of(head, query, i32(j0 + lane * C + /*c*/0u));
                // @end
                // @unroll c C
                var s_c0 = 0.0;
                // @end
                // @unroll y D4
                // @unroll e 4
                let q_y0_e0 = subgroupBroadcast(q_i[/*y*/0u / (Q_RUN * LANES) * Q_RUN + /*y*/0u % Q_RUN][/*e*/0u], /*y*/0u / Q_RUN % LANES);
                // @unroll c C
                // @region !FUSED
                s_c0 += q_y0_e0 * k_c0[/*y*/0u][/*e*/0u];
                // @end
                // @region FUSED
                s_c0 = fma(q_y0_e0, k_c0[/*y*/0u][/*e*/0u], s_c0);
                // @end
                // @end
                // @end
                // @end

                let m_old = subgroupShuffle(m_lanes, x - x0);
                var m_lane = m_old;
                // @unroll c C
                let score_c0 = score_of(head, query, i32(j0 + lane * C + /*c*/0u), key_c0, s_c0);
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

                // The same sums in vectors or fused: LLVM 15 is 1.1 times as fast with vectors, LLVM 22 without.
                var acc: array<vec4<f32>, DV4>;
                // @region !FUSED
                // @unroll n DV4
                acc[/*n*/0u] = vec4<f32>();
                // @end
                // @end
                // @region FUSED
                // @unroll n DV4
                // @unroll e 4
                var acc_n0_e0 = 0.0;
                // @end
                // @end
                // @end
                // @unroll c C
                // @unroll l LANES
                let p_c0_l0 = subgroupBroadcast(p_c0, /*l*/0u);
                // @unroll n DV4
                // @region !FUSED
                acc[/*n*/0u] += p_c0_l0 * v_c0_l0[/*n*/0u];
                // @end
                // @region FUSED
                // @unroll e 4
                acc_n0_e0 = fma(p_c0_l0, v_c0_l0[/*n*/0u][/*e*/0u], acc_n0_e0);
                // @end
                // @end
                // @end
                // @end
                // @end
                // The first panel that a row sees here finds nothing in out, the last one divides. Read here, out keeps LLVM
                // from taking the products of one column after the other.
                let out_row = out_head + h * out_h + i * out_t;
                // @unroll g DV8
                var o_g0 = Pair();
                // @end
                // @unroll t DVT
                var o_t0 = vec4<f32>();
                // @end
                if j0 > keys.first && query.first < i32(j0) {
                    // @unroll g DV8
                    o_g0 = out_pair(out_row, v_first + column(2u * /*g*/0u, 2u, lane), out_d, v_width);
                    // @end
                    // @unroll t DVT
                    o_t0 = out_four(out_row, v_first + column(2u * DV8, 1u, lane), out_d, v_width);
                    // @end
                }
                let o = array<vec4<f32>, DV4>(
                    // @unroll g DV8
                    o_g0.a,
                    o_g0.b,
                    // @end
                    // @unroll t DVT
                    o_t0,
                    // @end
                );
                // @region !FUSED
                // @unroll n DV4
                acc[/*n*/0u] += o[/*n*/0u] * keep;
                // @end
                // @end
                // @region FUSED
                // @unroll n DV4
                // @unroll e 4
                acc_n0_e0 = fma(o[/*n*/0u][/*e*/0u], keep, acc_n0_e0);
                // @end
                // @end
                // @end
                // @region !SPLIT
                if i32(j0 + BLOCK) >= query.end {
                    let part = select(0.0, 1.0 / l_new, l_new > 0.0);
                    // @unroll n DV4
                    // @region !FUSED
                    acc[/*n*/0u] *= part;
                    // @end
                    // @region FUSED
                    // @unroll e 4
                    acc_n0_e0 *= part;
                    // @end
                    // @end
                    // @end
                    // @region LSE
                    if writes_row {
                        lse[lse_head + h * lse_h + i * lse_t] = select(LOWEST, m_new + log(l_new), l_new > 0.0);
                    }
                    // @end
                }
                // @end
                // @region FUSED
                // @unroll n DV4
                // @unroll e 4
                acc[/*n*/0u][/*e*/0u] = acc_n0_e0;
                // @end
                // @end
                // @end
                // @unroll g DV8
                write_pair(out_row, v_first + column(2u * /*g*/0u, 2u, lane), out_d, v_width, Pair(acc[2u * /*g*/0u], acc[2u * /*g*/0u + 1u]));
                // @end
                // @unroll t DVT
                write_four(out_row, v_first + column(2u * DV8, 1u, lane), out_d, v_width, acc[2u * DV8]);
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
            let out_row = out_head + h * out_h + i * out_t;
            // @unroll g DV8
            write_pair(out_row, v_first + column(2u * /*g*/0u, 2u, lane), out_d, v_width, Pair());
            // @end
            // @unroll t DVT
            write_four(out_row, v_first + column(2u * DV8, 1u, lane), out_d, v_width, vec4<f32>());
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
