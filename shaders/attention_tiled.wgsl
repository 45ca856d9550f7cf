// Attention, tiled: a workgroup takes BR query rows, and stages 32 keys and values at a time in workgroup memory.
//
//     S = Q·Kᵀ (BR × BC), P_ij = exp(s_ij − m_i), l_i ← l_i·keep_i + Σ_j P_ij, O ← keep_i·O + P·V, out = O / l
//
// with keep_i = exp(m_i before − m_i after). Dao, "FlashAttention-2", 2023.
//
// Invocation (g, c), c < 8, holds TR rows of S and O: rows g, g + G, …, 4 columns of S and 4·NV of O. Each product takes
// whole vec4s from workgroup memory, 4 multiplications for each float that it reads. Between the products one invocation
// a row turns scores into weights; masks, modifiers and statistics are met only there.
//
// D runs in steps of KT, V in steps of VT keys, so that 16 KiB suffice for any head; with more (a GPU has 32 to 48) the
// tile of q stays for the whole run. Odd strides and the xor spread rows over the banks.
//
// Few query rows (decoding) give few workgroups: then the keys of a tile are split over several (region SPLIT), each
// writes O, m and l as they are, and attention_merge.wgsl joins them. Query heads that share a key head can share a tile
// (`span`), so that their keys are read once. "Flash-Decoding", 2023.
//
// Tiles of keys that a boolean mask hides are skipped, and those that it leaves whole don't read it, where
// attention_tiles.wgsl has looked before (region MASK_TILES).
//
// Indices: rows, columns and steps are below the constants that size the arrays (const_assert); storage indices are
// below the sizes and lengths that the host, or attention_items.wgsl, has checked.

const BR: u32 = 64u; // @slot BR: rows of a workgroup
const BC: u32 = 32u; // keys at a time
const TR: u32 = 8u; // @slot TR: rows of an invocation: 8, 4 or 2
const NV: u32 = 2u; // @slot NV: vec4s of each row of O of an invocation; 32·NV ≥ Dv
const KT: u32 = 16u; // @slot KT: columns of q and k at a time, a multiple of 8
const VT: u32 = 16u; // @slot VT: rows of v at a time, a multiple of 4 that divides BC
const Q_COLUMNS: u32 = 16u; // @slot Q_COLUMNS: columns of q that are staged: KT, or all D
const Q_AT: u32 = 144u; // @slot Q_AT: where q is staged, behind k; behind v too if it stays
const STAGE: u32 = 464u; // @slot STAGE: vec4s of staged q, k and v

const G: u32 = BR / TR;
const WG: u32 = 8u * G;
const Q_STRIDE: u32 = Q_COLUMNS / 4u + 1u;
const K_STRIDE: u32 = BC / 4u + 1u;
const V_STRIDE: u32 = 8u * NV;

const_assert TR * G == BR && G % 8u == 0u;
const_assert KT % 8u == 0u && Q_COLUMNS % KT == 0u && BC % VT == 0u && VT % 4u == 0u;
const_assert KT * K_STRIDE <= Q_AT && Q_AT + BR * Q_STRIDE <= STAGE && VT * V_STRIDE <= STAGE;

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

alias q_elem = f32; // @slot q_elem: f32 or vec4<f32>; u32 for two narrow elements, vec2<u32> for four
alias k_elem = f32; // @slot k_elem: f32, or u32 for two narrow elements
alias v_elem = f32; // @slot v_elem: as q_elem
alias bias_elem = f32; // @slot bias_elem: as k_elem
alias out_elem = f32; // @slot out_elem: as q_elem; SPLIT: f32

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
fn q_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> { let at = row + d * step; return vec4<f32>(q[at.x], q[at.y], q[at.z], q[at.w]); }

// @slot k_at: an element of k
fn k_at(i: u32) -> f32 { return k[i]; }

// @slot v_four: four elements of a row of v
fn v_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> { let at = row + d * step; return vec4<f32>(v[at.x], v[at.y], v[at.z], v[at.w]); }

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

var<workgroup> stage: array<vec4<f32>, STAGE>; // k (KT, BC) or v (VT, 32·NV) from 0 on, q (BR, Q_COLUMNS) from Q_AT on
var<workgroup> weights: array<vec4<f32>, BR * 8u>; // S, then P (BR, BC); vec4 x of row r lies at x ^ (r & 7)
var<workgroup> keep: array<f32, BR>; // by what O shrinks; at the end l

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

// Stages columns `d0` to `d0 + KT` of q as columns `to` on; 0 where there are none.
fn stage_q(t: u32, place: Place, d0: u32, to: u32) {
    for (var x = t; x < BR * KT / 4u; x += WG) {
        let r = x / (KT / 4u);
        let column = x % (KT / 4u);
        let d = vec4<u32>(d0 + 4u * column) + vec4<u32>(0u, 1u, 2u, 3u);
        let row = row_of(place, r);
        var four = vec4<f32>();
        if row.real {
            let at = p.q_offset + place.b * p.q_b + row.h * p.q_h + row.row * p.q_t;
            four = select(four, q_four(at, min(d, vec4<u32>(p.d - 1u)), p.q_d), d < vec4<u32>(p.d));
        }
        stage[Q_AT + r * Q_STRIDE + to / 4u + column] = four;
    }
}

// Stages columns `d0` to `d0 + KT` of the keys j0 to j0 + BC, transposed. Columns and keys past the end repeat the last:
// q has zeros there, and no query sees them.
fn stage_k(t: u32, pages: u32, k_head: u32, j0: u32, end: u32, d0: u32) {
    for (var x = t; x < KT * BC / 4u; x += WG) {
        let d = min(d0 + x % KT, p.d - 1u);
        let j = min(vec4<u32>(j0 + 4u * (x / KT)) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(end - 1u));
        var at = vec4<u32>(d * p.k_d);
        // @unroll e 4
        at[/*e*/0u] += key_row(pages, k_head, j[/*e*/0u], p.k_t, p.k_page);
        // @end
        stage[x % KT * K_STRIDE + x / KT] = vec4<f32>(k_at(at.x), k_at(at.y), k_at(at.z), k_at(at.w));
    }
}

// Stages the values of the keys j0 to j0 + VT, likewise: columns past the end are not written to out.
fn stage_v(t: u32, pages: u32, v_head: u32, j0: u32, end: u32) {
    for (var x = t; x < VT * V_STRIDE; x += WG) {
        let j = min(j0 + x / V_STRIDE, end - 1u);
        let d = vec4<u32>(4u * (x % V_STRIDE)) + vec4<u32>(0u, 1u, 2u, 3u);
        stage[x] = v_four(key_row(pages, v_head, j, p.v_t, p.v_page), min(d, vec4<u32>(p.dv - 1u)), p.v_d);
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let w = workgroup.x + workgroup.y * grid.x;
    if w >= p.workgroups {
        return;
    }
    let place = place_of(w);
    let item = place.item;
    let b = place.b;
    if place.first >= item.rows * p.span {
        return;
    }
    let k_head = p.k_offset + b * p.k_b + place.h / p.group * p.k_h + item.k_start * p.k_t;
    let v_head = p.v_offset + b * p.v_b + place.h / p.group * p.v_h + item.k_start * p.v_t;
    let keys = keys_of(place);
    let pages = pages_of(b);

    let g = t / 8u;
    let c = t % 8u;
    let swizzle = g & 7u;
    // @unroll r TR
    // @unroll n NV
    var acc_r0_n0 = vec4<f32>();
    // @end
    // @end
    // Of row t, for t < BR.
    let own = row_of(place, t);
    let head = head_of(b, own.h);
    var query = query_of(item, head, own.i);
    query.end = min(query.end, i32(keys.end));
    var m_i = LOWEST;
    var l_i = 0.0;

    // @region Q_STAYS
    for (var d0 = 0u; d0 < p.d; d0 += KT) {
        stage_q(t, place, d0, d0);
    }
    // @end
    var first = keys.first;
    var tiles_at = 0u;
    // @region !SPLIT
    // Where a tile of a mask begins; nobody sees the keys before.
    first -= first % BC;
    // @end
    // @region MASK_TILES
    tiles_at = b * p.tiles_b + place.h * p.tiles_h + place.first / BR * p.tiles_i;
    // @end
    for (var j0 = next_tile(tiles_at, first, keys.end); j0 < keys.end; j0 = next_tile(tiles_at, j0 + BC, keys.end)) {
        // @region MASK_TILES
        tile_is_full = mask_tiles[tiles_at + j0 / BC] == 1u;
        // @end
        // @unroll r TR
        var s_r0 = vec4<f32>();
        // @end
        for (var d0 = 0u; d0 < p.d; d0 += KT) {
            workgroupBarrier();
            var q_column = d0;
            // @region !Q_STAYS
            q_column = 0u;
            stage_q(t, place, d0, 0u);
            // @end
            stage_k(t, pages, k_head, j0, keys.end, d0);
            workgroupBarrier();
            for (var d = 0u; d < KT; d += 4u) {
                // @unroll r TR
                let q_r0 = stage[Q_AT + (g + G * /*r*/0u) * Q_STRIDE + (q_column + d) / 4u];
                // @end
                // @unroll e 4
                let k_e0 = stage[(d + /*e*/0u) * K_STRIDE + c];
                // @unroll r TR
                s_r0 += q_r0[/*e*/0u] * k_e0;
                // @end
                // @end
            }
        }
        // @unroll r TR
        weights[(g + G * /*r*/0u) * 8u + (c ^ swizzle)] = s_r0;
        // @end
        workgroupBarrier();

        if t < BR {
            var seen = 0u;
            var m_new = m_i;
            for (var x = 0u; x < 8u; x++) {
                let at = t * 8u + (x ^ (t & 7u));
                var four = weights[at];
                // @unroll e 4
                let j_e0 = i32(j0 + 4u * x + /*e*/0u);
                let score_e0 = score_of(head, query, j_e0, key_of(head, query, j_e0), four[/*e*/0u]);
                four[/*e*/0u] = score_e0.value;
                if score_e0.seen {
                    seen |= 1u << (4u * x + /*e*/0u);
                    m_new = max(m_new, score_e0.value);
                }
                // @end
                weights[at] = four;
            }
            let shrink = exp(m_i - m_new);
            m_i = m_new;
            l_i *= shrink;
            keep[t] = shrink;
            for (var x = 0u; x < 8u; x++) {
                let at = t * 8u + (x ^ (t & 7u));
                let bits = (vec4<u32>(seen >> (4u * x)) & vec4<u32>(1u, 2u, 4u, 8u)) != vec4<u32>();
                let four = select(vec4<f32>(), exp(weights[at] - m_i), bits);
                weights[at] = four;
                l_i += four.x + four.y + four.z + four.w;
            }
        }
        stage_v(t, pages, v_head, j0, keys.end);
        workgroupBarrier();

        // @unroll r TR
        let keep_r0 = keep[g + G * /*r*/0u];
        // @unroll n NV
        acc_r0_n0 *= keep_r0;
        // @end
        // @end
        for (var v0 = 0u; v0 < BC; v0 += VT) {
            if v0 > 0u {
                workgroupBarrier();
                stage_v(t, pages, v_head, j0 + v0, keys.end);
                workgroupBarrier();
            }
            for (var y = 0u; y < VT; y += 4u) {
                // @unroll r TR
                let p_r0 = weights[(g + G * /*r*/0u) * 8u + (((v0 + y) / 4u) ^ swizzle)];
                // @end
                // @unroll n NV
                // @unroll e 4
                let v_n0_e0 = stage[(y + /*e*/0u) * V_STRIDE + 8u * /*n*/0u + c];
                // @unroll r TR
                acc_r0_n0 += p_r0[/*e*/0u] * v_n0_e0;
                // @end
                // @end
                // @end
            }
        }
    }

    // @region SPLIT
    // Rows are numbered (B, Hq, Tq), packed (Hq, ΣTq): there lse_b is 0.
    if t < BR && own.real {
        let at = place.split * p.all_rows + b * p.lse_b + own.h * p.rows + own.row;
        out[p.splits * p.all_rows * p.dv + 2u * at] = m_i;
        out[p.splits * p.all_rows * p.dv + 2u * at + 1u] = l_i;
    }
    // @unroll r TR
    let part_r0 = row_of(place, g + G * /*r*/0u);
    if part_r0.real {
        let at = (place.split * p.all_rows + b * p.lse_b + part_r0.h * p.rows + part_r0.row) * p.dv;
        // @unroll n NV
        write_four(at, 4u * (8u * /*n*/0u + c), 1u, p.dv, acc_r0_n0);
        // @end
    }
    // @end
    // @end
    // @region !SPLIT
    workgroupBarrier();
    if t < BR {
        keep[t] = l_i;
        // @region LSE
        if own.real {
            lse[b * p.lse_b + own.h * p.lse_h + own.row * p.lse_t] = select(LOWEST, m_i + log(l_i), l_i > 0.0);
        }
        // @end
    }
    workgroupBarrier();
    // @unroll r TR
    let row_r0 = row_of(place, g + G * /*r*/0u);
    if row_r0.real {
        let at = p.out_offset + b * p.out_b + row_r0.h * p.out_h + row_r0.row * p.out_t;
        let l = keep[g + G * /*r*/0u];
        // @unroll n NV
        write_four(at, 4u * (8u * /*n*/0u + c), p.out_d, p.dv, select(vec4<f32>(), acc_r0_n0 / l, l > 0.0));
        // @end
    }
    // @end
    // @end
}
