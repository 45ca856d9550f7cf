// Attention, a launch before: says of each tile of a boolean mask whether it hides all keys, none, or some, so that the
// kernel after it never visits the first kind and does not read the mask for the second.
//
//     tile[b, h, y, x] = 1 (a key is seen) | 2 (a key is hidden)     over queries i of row tile y and keys j of key tile x
//
// Dong et al., "Flex Attention" (its BlockMask), 2024. A workgroup takes a tile, an invocation one of its rows. A mask that
// broadcasts over items or heads is looked at once for all of them.
//
// Time of attention_tiled.wgsl with this launch, over that without (llvmpipe, Mesa 22.3, d64; no bit of the results differs):
//
//     128 by 128 along the diagonal of 512×512      0.28 (0.29 if each head has its own mask)
//     the same of 1024×1024                         0.15, less than attention_panel.wgsl takes (1.3 times as long)
//     nothing hidden                                1.00
//     half of the elements at random                1.02; a mask for each head 1.05, and 1.07 with d16

struct Params {
    // Workgroups in all: B · Hq · row tiles · key tiles, less what broadcasts.
    workgroups: u32,
    heads: u32,
    row_tiles: u32,
    key_tiles: u32,
    // Tq, and the keys that the mask reaches.
    rows: u32,
    keys: u32,
    // First element, and steps of (B, Hq, Tq, Tk); 0 where they broadcast.
    mask_offset: u32,
    mask_b: u32,
    mask_h: u32,
    mask_i: u32,
    mask_j: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> mask: array<u32>; // broadcasts to (B, Hq, Tq, Tk), four to a word
@group(0) @binding(2) var<storage, read_write> mask_tiles: array<u32>; // (B, Hq, row tiles, key tiles), 1 for what broadcasts

const BR: u32 = 64u; // @slot BR: rows of a tile
const BC: u32 = 32u; // @slot BC: keys of a tile

const_assert BC % 4u == 0u && BR <= 256u;

var<workgroup> found: atomic<u32>;

fn mask_at(at: u32) -> u32 {
    return (mask[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu;
}

// @slot mask_four: keys j to j + 4 of a row of the mask, a byte each
fn mask_four(row: u32, j: u32) -> u32 { let at = row + j * p.mask_j; return mask_at(at) | (mask_at(at + p.mask_j) << 8u) | (mask_at(at + 2u * p.mask_j) << 16u) | (mask_at(at + 3u * p.mask_j) << 24u); }

@compute @workgroup_size(BR)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let w = workgroup.x + workgroup.y * grid.x;
    if w >= p.workgroups {
        return;
    }
    let first = w % p.key_tiles * BC;
    let tiles = w / p.key_tiles;
    let i = tiles % p.row_tiles * BR + t;
    let heads = tiles / p.row_tiles;
    let row = p.mask_offset + heads / p.heads * p.mask_b + heads % p.heads * p.mask_h + i * p.mask_i;
    let rows = p.rows;
    let keys = p.keys;

    if t == 0u {
        atomicStore(&found, 0u);
    }
    workgroupBarrier();
    if i < rows {
        var seen = 0u;
        var hidden = 0u;
        for (var x = 0u; x < BC; x += 4u) {
            let j = first + x;
            if j < keys {
                // A bit for each key that is there, whose byte is not 0.
                let there = 0x01010101u >> (8u * (4u - min(4u, keys - j)));
                var four = mask_four(row, j);
                four |= four >> 4u;
                four |= four >> 2u;
                four |= four >> 1u;
                seen |= four & there;
                hidden |= ~four & there;
            }
        }
        atomicOr(&found, select(0u, 1u, seen != 0u) | select(0u, 2u, hidden != 0u));
    }
    workgroupBarrier();
    if t == 0u {
        mask_tiles[w] = atomicLoad(&found);
    }
}
