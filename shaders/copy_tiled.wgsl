// Copy of a transposed view through tiles in workgroup memory, so that both reads and writes are of neighbours.
//
//   out[r, t, j] = x[base(r) + t + j * step]        t: the axis along which x is dense, j: the last axis of the output
//
// A workgroup copies a square of TILE x TILE elements: its invocations read along t, and write whole words along j. Rows
// of the output are whole words. Elements travel as bits.
//
// Tried: tiles without the odd column (each read of a column then meets one memory bank).

const TILE: u32 = 32u; // @slot TILE: rows and columns of a tile
const ROWS: u32 = 8u; // @slot ROWS: rows of a tile that a workgroup reads together
const PER: u32 = 1u; // @slot PER: elements of a word of the output
const WORDS: u32 = 1u; // @slot WORDS: vectors of parameters
const WORKGROUP: u32 = TILE * ROWS;
const_assert TILE % ROWS == 0u;
const_assert TILE % PER == 0u;

struct Params {
  tiles: u32, // in all
  tiles_t: u32, // along t
  tiles_j: u32, // along j
  unused0: u32,
  size_t: u32,
  size_j: u32,
  step: u32, // of j in x
  row: u32, // of t in the output, in words
  words: array<vec4<u32>, WORDS>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

// n / d for n < 2^31, by a multiplication: m = ceil(2^(31 + s) / d) and s = ceil(log2 d) come from the host. Granlund and
// Montgomery, "Division by invariant integers using multiplication", 1994. (n / d is several times slower on adapters
// that divide lane by lane.)
fn quotient(n: u32, m: u32, s: u32) -> u32 {
  let a = 2u * n;
  let low = (a & 0xffffu) * (m & 0xffffu);
  let middle = (a >> 16u) * (m & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (m >> 16u) + (middle & 0xffffu);
  return ((a >> 16u) * (m >> 16u) + (middle >> 16u) + (other >> 16u)) >> s;
}

var<workgroup> tile: array<u32, TILE * (TILE + 1u)>;

// @slot fetch: the bits of element k
fn fetch(k: u32) -> u32 { return x[k]; }

// @slot read_base: where slice r begins in x, in elements
fn read_base(i: u32) -> u32 { return i; }

// @slot write_base: where slice r begins in the output, in words
fn write_base(i: u32) -> u32 { return i; }

// @slot join: a word from elements PER times k … of a column of the tile
fn join(k: u32) -> u32 { return tile[k]; }

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let n = group.x + group.y * groups.x;
  if n >= p.tiles {
    return;
  }
  let j0 = n % p.tiles_j * TILE;
  let t0 = n / p.tiles_j % p.tiles_t * TILE;
  let r = n / p.tiles_j / p.tiles_t;

  let first = read_base(r) + t0 + j0 * p.step;
  let t = lane % TILE;
  for (var j = lane / TILE; j < TILE; j += ROWS) {
    if t0 + t < p.size_t && j0 + j < p.size_j {
      tile[j * (TILE + 1u) + t] = fetch(first + t + j * p.step);
    }
  }
  workgroupBarrier();

  let to = write_base(r) + t0 * p.row + j0 / PER;
  let columns = TILE / PER;
  for (var k = lane; k < TILE * columns; k += WORKGROUP) {
    let row = k / columns;
    let word = k % columns;
    if t0 + row < p.size_t && j0 + word * PER < p.size_j {
      out[to + row * p.row + word] = join(word * PER * (TILE + 1u) + row);
    }
  }
}
