// Attention, the launch before: makes a clean record of each batch item or packed sequence from lengths and offsets that
// live in buffers, so that the kernels after it read one buffer, and never an index that was not checked.
//
//     record = q_start, rows, q_len, k_start, k_end, lo, hi, offset         8 words, i32
//     query i < q_len sees key j  ⟺  max(0, i + lo) ≤ j < min(k_end, i + hi + 1)
//
// Causal order and window are all in lo and hi: lo = offset − left, hi = offset + right, with right = 0 if causal.
//
// Packed, records cover each row of q, also those before the first sequence and after the last one, which see nothing:
// record 0 and record S + 1 are those gaps, record 1 + s is sequence s. Decreasing entries of cu_seqlens count as the
// highest before them, so that no two sequences share a row.
//
// One workgroup. Each invocation takes a run of consecutive entries; the running maximum over the runs before it comes
// through workgroup memory.

struct Params {
    // Batch items B, or packed sequences S.
    items: u32,
    // Hq
    heads: u32,
    // Tq, Tk; packed ΣTq, ΣTk
    q_rows: i32,
    k_rows: i32,
    // Keys from here on are hidden by a mask or bias that is shorter than Tk.
    k_limit: i32,
    // The offset, unless it comes from lengths or a buffer.
    offset: i32,
    // Sizes of the window, below 2^30; with 0 for `open_left`, `open_right` they count.
    left: i32,
    right: i32,
    open_left: u32,
    open_right: u32,
    // Index of the first element of each buffer, and the step between elements.
    key_lengths_offset: u32,
    key_lengths_step: u32,
    query_lengths_offset: u32,
    query_lengths_step: u32,
    offsets_offset: u32,
    offsets_step: u32,
    query_offsets_offset: u32,
    query_offsets_step: u32,
    key_offsets_offset: u32,
    key_offsets_step: u32,
    slopes_offset: u32,
    slopes_step: u32,
    // Where the slopes go in `items`.
    slopes_at: u32,
    // The block table: first entry, steps of (B, P), rows of a page, and the last page.
    table_offset: u32,
    table_b: u32,
    table_n: u32,
    page_rows: i32,
    last_page: i32,
}

@group(0) @binding(0) var<uniform> p: Params;
// @region KEY_LENGTHS
@group(0) @binding(1) var<storage, read> key_lengths: array<i32>; // (B)
// @end
// @region QUERY_LENGTHS
@group(0) @binding(2) var<storage, read> query_lengths: array<i32>; // (B)
// @end
// @region OFFSETS
@group(0) @binding(3) var<storage, read> offsets: array<i32>; // (B)
// @end
// @region PACKED
@group(0) @binding(4) var<storage, read> query_offsets: array<i32>; // (S + 1)
// @end
// @region PACKED_KEYS
@group(0) @binding(5) var<storage, read> key_offsets: array<i32>; // (S + 1)
// @end
// @region CHECK_PAGES
@group(0) @binding(6) var<storage, read> block_table: array<i32>; // (B, P)
// @end
// @region SLOPES
@group(0) @binding(7) var<storage, read> slopes: array<u32>; // (Hq), bits of f32
// @end
@group(0) @binding(8) var<storage, read_write> items: array<u32>; // (B or S + 2, 8), then (Hq)
// @region STATUS
@group(0) @binding(9) var<storage, read_write> status: array<i32>; // (B or S): a bit for each kind of fault
// @end

const WG: u32 = 64u;
// Offsets count as at most this, either way: there are no more keys.
const FAR: i32 = 0x40000000;

const FAULT_KEY_LENGTH: u32 = 1u;
const FAULT_QUERY_LENGTH: u32 = 2u;
const FAULT_OFFSET: u32 = 4u;
const FAULT_QUERY_OFFSETS: u32 = 8u;
const FAULT_KEY_OFFSETS: u32 = 16u;
const FAULT_BLOCK_TABLE: u32 = 32u;

// Of the record that the invocation is about to write.
var<private> faults: u32;

// @region PACKED
var<workgroup> q_highest: array<i32, WG>;
var<workgroup> k_highest: array<i32, WG>;
// @end

fn report(fault: u32) {
    faults |= fault;
}

// `given`, held in 0 to `most`.
fn clamped(given: i32, most: i32, fault: u32) -> i32 {
    let held = clamp(given, 0, most);
    if held != given {
        report(fault);
    }
    return held;
}

// Record `at` of item `b`, and its status: `rows` rows of q from `q_start`, `keys` rows of k from `k_start`.
fn write_record(at: u32, b: u32, q_start: i32, rows: i32, k_start: i32, keys: i32) {
    var q_len = rows;
    var k_len = keys;
    var offset = p.offset;
    // @region QUERY_LENGTHS
    q_len = clamped(query_lengths[p.query_lengths_offset + b * p.query_lengths_step], rows, FAULT_QUERY_LENGTH);
    // @end
    // @region KEY_LENGTHS
    k_len = clamped(key_lengths[p.key_lengths_offset + b * p.key_lengths_step], keys, FAULT_KEY_LENGTH);
    // @end
    // @region BOTTOM_RIGHT
    offset = k_len - q_len;
    // @end
    // @region OFFSETS
    let given = offsets[p.offsets_offset + b * p.offsets_step];
    offset = clamp(given, -FAR, FAR);
    if offset != given {
        report(FAULT_OFFSET);
    }
    // @end
    // Held in −Tq to Tk, which changes nothing for any i and j, and keeps i + lo and i + hi + 1 in 32 bits.
    let lo = select(clamp(offset - p.left, -p.q_rows, p.k_rows), -p.q_rows, p.open_left != 0u);
    let hi = select(clamp(offset + p.right, -p.q_rows, p.k_rows), p.k_rows, p.open_right != 0u);
    let k_end = min(k_len, p.k_limit);
    let to = at * 8u;
    items[to] = u32(q_start);
    items[to + 1u] = u32(rows);
    items[to + 2u] = u32(q_len);
    items[to + 3u] = u32(k_start);
    items[to + 4u] = u32(k_end);
    items[to + 5u] = u32(lo);
    items[to + 6u] = u32(hi);
    items[to + 7u] = u32(offset);
    // @region CHECK_PAGES
    for (var n = 0; n < (k_len + p.page_rows - 1) / p.page_rows; n++) {
        let page = block_table[p.table_offset + b * p.table_b + u32(n) * p.table_n];
        if page < 0 || page > p.last_page {
            report(FAULT_BLOCK_TABLE);
        }
    }
    // @end
    // @region STATUS
    status[b] = i32(faults);
    // @end
    faults = 0u;
}

// @region PACKED
// Record `at` of rows that belong to no sequence.
fn write_gap(at: u32, q_start: i32, rows: i32) {
    let to = at * 8u;
    items[to] = u32(q_start);
    items[to + 1u] = u32(rows);
    for (var word = 2u; word < 8u; word++) {
        items[to + word] = 0u;
    }
}

fn query_offset(entry: u32) -> i32 {
    return query_offsets[p.query_offsets_offset + entry * p.query_offsets_step];
}

fn key_offset(entry: u32) -> i32 {
    var offset = 0;
    // @region PACKED_KEYS
    offset = key_offsets[p.key_offsets_offset + entry * p.key_offsets_step];
    // @end
    return offset;
}

// Reports an entry that is not where the sequences before it, and the buffers, put it.
fn check_entry(entry: u32, q_at: i32, k_at: i32) {
    if q_at != query_offset(entry) {
        report(FAULT_QUERY_OFFSETS);
    }
    if k_at != key_offset(entry) {
        report(FAULT_KEY_OFFSETS);
    }
}
// @end

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) t: u32) {
    // @region SLOPES
    for (var h = t; h < p.heads; h += WG) {
        items[p.slopes_at + h] = slopes[p.slopes_offset + h * p.slopes_step];
    }
    // @end
    // @region !PACKED
    for (var b = t; b < p.items; b += WG) {
        write_record(b, b, 0, p.q_rows, 0, p.k_rows);
    }
    // @end
    // @region PACKED
    let entries = p.items + 1u;
    let run = (entries + WG - 1u) / WG;
    let first = min(t * run, entries);
    let end = min(first + run, entries);
    var q_run = 0;
    var k_run = 0;
    for (var entry = first; entry < end; entry++) {
        q_run = max(q_run, query_offset(entry));
        k_run = max(k_run, key_offset(entry));
    }
    q_highest[t] = min(q_run, p.q_rows);
    k_highest[t] = min(k_run, p.k_rows);
    workgroupBarrier();
    var q_start = 0;
    var k_start = 0;
    for (var before = 0u; before < t; before++) {
        q_start = max(q_start, q_highest[before]);
        k_start = max(k_start, k_highest[before]);
    }
    for (var entry = first; entry < end; entry++) {
        let q_end = max(q_start, min(query_offset(entry), p.q_rows));
        let k_end = max(k_start, min(key_offset(entry), p.k_rows));
        if entry == 0u {
            write_gap(0u, 0, q_end);
        } else {
            if entry == 1u {
                check_entry(0u, q_start, k_start);
            }
            check_entry(entry, q_end, k_end);
            var keys = k_end - k_start;
            // @region !PACKED_KEYS
            // Pages: every sequence has its own.
            keys = p.k_rows;
            // @end
            write_record(entry, entry - 1u, q_start, q_end - q_start, k_start, keys);
        }
        if entry == p.items {
            write_gap(entry + 1u, q_end, p.q_rows - q_end);
        }
        q_start = q_end;
        k_start = k_end;
    }
    // @end
}
