// Attention, plain: an invocation takes one query row, and walks over the keys that it sees with an online softmax.
//
//     s_ij = softcap(scale · q_i·k_j) + bias_ij + slope_h · (j − (i + offset))
//     m_i = max_j s_ij,  l_i = Σ_j exp(s_ij − m_i),  out_i = Σ_j exp(s_ij − m_i) · v_j / l_i,  lse_i = m_i + log l_i
//
// over the keys j that query i sees; a row without any gives 0, and the lowest f32 for lse.
// Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022.
//
// The portable baseline: no workgroup memory, no features, no barriers. The row of q and the accumulator live in
// per-invocation arrays with a run-time index, which GPUs put in memory: other variants are faster.

const ROWS: u32 = 64u; // query rows of a workgroup, an invocation each
const D_MAX: u32 = 64u; // @slot D_MAX: at least D and Dv, at least 1

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

alias q_elem = f32; // @slot q_elem: f32, or u32 for two narrow elements
alias k_elem = f32; // @slot k_elem: likewise
alias v_elem = f32; // @slot v_elem: likewise
alias bias_elem = f32; // @slot bias_elem: likewise
alias out_elem = f32; // @slot out_elem: likewise

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

// @slot q_at: an element of q
fn q_at(i: u32) -> f32 { return q[i]; }

// @slot k_at: an element of k
fn k_at(i: u32) -> f32 { return k[i]; }

// @slot v_at: an element of v
fn v_at(i: u32) -> f32 { return v[i]; }

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

// @slot write_two: writes columns d and d + 1 of a row of out, as far as there are
fn write_two(row: u32, d: u32, step: u32, two: vec2<f32>) { out[row + d * step] = two.x; if d + 1u < p.dv { out[row + (d + 1u) * step] = two.y; } }

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

@compute @workgroup_size(ROWS)
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
    let i = place.first + t;
    if i >= item.rows {
        return;
    }
    let b = place.b;
    let h = place.h;
    let row = item.q_start + i;
    let q_row = p.q_offset + b * p.q_b + h * p.q_h + row * p.q_t;
    let k_head = p.k_offset + b * p.k_b + h / p.group * p.k_h + item.k_start * p.k_t;
    let v_head = p.v_offset + b * p.v_b + h / p.group * p.v_h + item.k_start * p.v_t;
    // Parameters of the loops.
    let width = p.d;
    let v_width = p.dv;
    let k_t = p.k_t;
    let k_d = p.k_d;
    let v_t = p.v_t;
    let v_d = p.v_d;
    let k_page = p.k_page;
    let v_page = p.v_page;
    let pages = pages_of(b);

    // Columns from D on, up to a multiple of 8, are 0 in q, and repeat the last one in k and v.
    var q_i: array<f32, D_MAX>;
    var acc: array<f32, D_MAX>;
    for (var d = 0u; d < width; d++) {
        q_i[d] = q_at(q_row + d * p.q_d);
    }

    let head = head_of(b, h);
    let query = query_of(item, head, i);
    var m_i = LOWEST;
    var l_i = 0.0;
    for (var j = query.first; j < query.end; j++) {
        let k_row = key_row(pages, k_head, u32(j), k_t, k_page);
        var dot = 0.0;
        for (var d = 0u; d < width; d += 8u) {
            // @unroll e 8
            dot += q_i[d + /*e*/0u] * k_at(k_row + min(d + /*e*/0u, width - 1u) * k_d);
            // @end
        }
        let score = score_of(head, query, j, key_of(head, query, j), dot);
        if score.seen {
            let m_new = max(m_i, score.value);
            let keep = exp(m_i - m_new);
            let weight = exp(score.value - m_new);
            m_i = m_new;
            l_i = l_i * keep + weight;
            let v_row = key_row(pages, v_head, u32(j), v_t, v_page);
            for (var d = 0u; d < v_width; d += 8u) {
                // @unroll e 8
                acc[d + /*e*/0u] = acc[d + /*e*/0u] * keep + weight * v_at(v_row + min(d + /*e*/0u, v_width - 1u) * v_d);
                // @end
            }
        }
    }

    let out_row = p.out_offset + b * p.out_b + h * p.out_h + row * p.out_t;
    let out_d = p.out_d;
    for (var d = 0u; d < v_width; d += 2u) {
        let two = vec2<f32>(acc[d], acc[d + 1u]);
        write_two(out_row, d, out_d, select(vec2<f32>(), two / l_i, l_i > 0.0));
    }
    // @region LSE
    lse[b * p.lse_b + h * p.lse_h + row * p.lse_t] = select(LOWEST, m_i + log(l_i), l_i > 0.0);
    // @end
}
