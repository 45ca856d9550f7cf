//! What the shaders' slots get: how operands are read from their words, and how the result is written in its own.

use std::sync::Arc;

use super::{
    A, B, BIAS, MatmulProblem, Quantized, RESIDUAL, View,
    variant::{Panel, Tile},
};
use crate::{
    DType, Result,
    kernel::{
        Profile, Source, Specialization,
        long::{eight, has_eights, of_eight},
        narrow::{four, low, word},
        unary_wgsl,
    },
    quantize::Packing,
};

/// What a dispatch writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The result, in its dtype.
    Result,
    /// The bare sums in f32, which `matmul_reduce.wgsl` makes the result of.
    Sums,
}

impl MatmulProblem {
    /// Whether each four of a matrix's `columns` columns lie in one word (16 bytes, or 8 of 16-bit elements).
    pub(super) fn quads(&self, operand: usize, view: View, columns: usize) -> bool {
        self.words(4, operand, view, columns)
    }

    /// Whether each eight of a matrix's `columns` columns lie in one word (32 bytes, or 16 of 16-bit elements).
    pub(super) fn octs(&self, operand: usize, view: View, columns: usize) -> bool {
        self.words(8, operand, view, columns)
    }

    fn words(&self, elements: usize, operand: usize, view: View, columns: usize) -> bool {
        let whole = |stride: isize| stride % elements as isize == 0;
        view.column == 1
            && columns.is_multiple_of(elements)
            && view.offset.is_multiple_of(elements)
            && whole(view.row)
            && self.batch.iter().all(|axis| whole(axis.strides[operand]))
    }

    /// What a dispatch writes that writes the result by quads of columns. 16-bit elements lie two to a word, and a word
    /// needs one writer: where rows of odd length share words, the sums go through memory.
    pub(super) fn stage(&self) -> Stage {
        let own_words = self.n.is_multiple_of(2) || self.products() * self.m <= 1;
        if self.out == DType::F32 || own_words { Stage::Result } else { Stage::Sums }
    }

    /// The slots of parameters and result, which every shader of the family has.
    pub(super) fn result(&self, kernel: &'static str, stage: Stage) -> Specialization {
        let slots = Specialization::new(kernel).value("BATCH_AXES", self.batch.len());
        if stage == Stage::Sums {
            return slots;
        }
        let others = [(BIAS, "BIAS", "bias", self.bias), (RESIDUAL, "RESIDUAL", "residual", self.residual)];
        let mut slots = others.into_iter().fold(slots, |slots, (operand, region, x, view)| match view {
            Some(view) => loads(slots.region(region, true), x, self.dtypes[operand], self.quads(operand, view, self.n)),
            None => slots,
        });
        if let Some(Quantized { packing: Packing { group: None, .. }, scales }) = self.quantized {
            slots = half_loads(slots.region("FACTOR", true), "factor", scales);
        }
        if let Some(function) = self.activation {
            slots = slots.function("activation", unary_wgsl(function, "activation"));
        }
        if !self.out.is_narrow() {
            return slots;
        }
        let pack = format!("fn pack(x: vec2<f32>) -> u32 {{ return {}; }}", word(self.out, "x.x", "x.y"));
        let pairs = "if columns > 0u { out[i / 2u] = pack(x.xy); } if columns > 2u { out[i / 2u + 1u] = pack(x.zw); }";
        let slots = slots.region("NARROW", true).ty("out_word", "u32").function("pack", pack);
        slots.function("write_out4", write_out4(pairs))
    }

    /// [`Self::result`] for shaders whose invocations write the elements of a word in the order of memory.
    pub(super) fn flat(&self, kernel: &'static str) -> Specialization {
        let slots = self.result(kernel, Stage::Result);
        if self.out == DType::F32 {
            return slots;
        }
        let write = "fn write_word(i: u32, x: vec2<f32>) { out[i / 2u] = pack(x); }";
        slots.value("PER", super::variant::per_word(self.out)).function("write_word", write)
    }

    /// [`Self::flat`], and the operands' slots.
    pub(super) fn flat_product(&self, kernel: &'static str) -> Specialization {
        let slots = loads(self.flat(kernel), "a", self.dtypes[A], self.quads(A, self.a, self.k));
        self.loads_b(slots, self.quads(B, self.b, self.n))
    }

    /// How b is read, whose quads are words or not.
    fn loads_b(&self, slots: Specialization, quads: bool) -> Specialization {
        match self.quantized {
            None => loads(slots, "b", self.dtypes[B], quads),
            Some(quantized) => quantized.loads(slots, quads),
        }
    }

    /// [`Self::result`], and the slots of operands and result that are read and written by quads.
    pub(super) fn quad_slots(&self, kernel: &'static str, stage: Stage) -> Specialization {
        let slots = self.result(kernel, stage);
        let slots = loads(slots, "a", self.dtypes[A], self.quads(A, self.a, self.k));
        let slots = self.loads_b(slots, self.quads(B, self.b, self.n));
        self.quad_writes(slots, stage)
    }

    /// How four columns are written.
    pub(super) fn quad_writes(&self, slots: Specialization, stage: Stage) -> Specialization {
        if !self.n.is_multiple_of(4) {
            return slots;
        }
        let (word, value) = if stage == Stage::Sums || self.out == DType::F32 {
            ("vec4<f32>", "x")
        } else {
            ("vec2<u32>", "vec2<u32>(pack(x.xy), pack(x.zw))")
        };
        let body = format!("if columns > 0u {{ out[i / 4u] = {value}; }}");
        slots.ty("out_word", word).function("write_out4", write_out4(&body))
    }

    /// [`Self::quad_slots`] for shaders that read b by squares: its quads may also lie along k.
    pub(super) fn squares(&self, kernel: &'static str) -> Specialization {
        let slots = self.quad_slots(kernel, self.stage());
        if !self.quads(B, self.b.transposed(), self.k) {
            return slots;
        }
        self.loads_b(slots, true).function(
            "load_b4x4",
            "fn load_b4x4(i: u32, k: vec4<u32>, n: vec4<u32>) -> mat4x4<f32> { return transpose(mat4x4<f32>(\
             load_b4(i + n.x + k), load_b4(i + n.y + k), load_b4(i + n.z + k), load_b4(i + n.w + k))); }",
        )
    }

    /// The slots of `matmul_panel.wgsl`: [`Self::squares`], and words of eight elements where the panel reads them.
    pub(super) fn panel(&self, panel: &Panel, profile: &Profile) -> Specialization {
        let slots = self.squares("matmul::panel");
        let slots = match panel.octs_of_b(self, profile) {
            Some(Along::N) => octs(slots, "b", self.dtypes[B]).function("load_b8x8", load_b8x8(Along::N)),
            Some(Along::K) => octs(slots, "b", self.dtypes[B]).function("load_b8x8", load_b8x8(Along::K)),
            None => slots,
        };
        let slots = if panel.octs_of_a(self, profile) {
            octs(slots, "a", self.dtypes[A]).function("row_a", ROW_A)
        } else {
            slots
        };
        if self.out != DType::F32 || !self.n.is_multiple_of(4) {
            return slots;
        }
        if !self.n.is_multiple_of(8) || !panel.has_octs(self.out, profile) {
            return slots
                .function("read_out4", "fn read_out4(i: u32, columns: u32) -> vec4<f32> { return out[i / 4u]; }");
        }
        let (word, [low, high]) = eight(DType::F32);
        let read = format!("let w = out[(row + min(n, p.N - 1u)) / 8u]; return Eight({low}, {high});");
        let write = format!("if n < p.N {{ out[(row + n) / 8u] = {}; }}", of_eight(["x.low", "x.high"]));
        // Whoever has eights alone calls no fours.
        slots
            .ty("out_word", word)
            .function("read_out8", format!("fn read_out8(row: u32, n: u32) -> Eight {{ {read} }}"))
            .function("read_out4", "fn read_out4(i: u32, columns: u32) -> vec4<f32> { return vec4<f32>(); }")
            .function("write_out8", format!("fn write_out8(row: u32, n: u32, x: Eight) {{ {write} }}"))
            .function("write_out4", write_out4(""))
    }

    /// The slots of `matmul_subgroup.wgsl`: words of eight elements where they lie so, b's along either axis.
    pub(super) fn subgroup(&self, profile: &Profile) -> Specialization {
        let slots = self.quad_slots("matmul::subgroup", self.stage());
        let (dense, length) = if self.b_dense_by_k() { (self.b.transposed(), self.k) } else { (self.b, self.n) };
        let slots = if self.quantized.is_none() && has_eights(self.dtypes[B], profile) && self.octs(B, dense, length) {
            octs(slots, "b", self.dtypes[B])
                .function("row_b", "fn row_b(i: Places) -> Eight { return load_b8(i.low.x); }")
        } else {
            self.loads_b(slots, self.quads(B, dense, length))
        };
        if has_eights(self.dtypes[A], profile) && self.octs(A, self.a, self.k) {
            octs(slots, "a", self.dtypes[A]).function("row_a", ROW_A)
        } else {
            slots
        }
    }

    pub(super) fn tiled(&self, tile: &Tile, stage: Stage) -> Result<Arc<Source>> {
        let invocations = tile.invocations();
        self.quad_slots("matmul::tiled", stage)
            .value("BM", tile.rows)
            .value("BN", tile.columns)
            .value("KQ", tile.quads)
            .value("TM", tile.own_rows)
            .value("TQ", tile.own_quads)
            .value("LA", tile.rows * tile.quads / invocations)
            .value("LB", tile.quads * tile.columns / invocations)
            .region("A_BY_M", self.a.row == 1)
            .region("B_BY_K", self.b_dense_by_k())
            .region("TAIL", !self.k.is_multiple_of(tile.depth()))
            .trusted()
            .source()
    }
}

/// Eight elements of a row of a that are one word.
const ROW_A: &str = "fn row_a(i: Places) -> Eight { return load_a8(i.low.x); }";

fn write_out4(body: &str) -> String {
    format!("fn write_out4(i: u32, columns: u32, x: vec4<f32>) {{ {body} }}")
}

impl Quantized {
    /// How b is read, whose numbers lie along k; quads of them are in one word, or need not be.
    fn loads(self, slots: Specialization, quads: bool) -> Specialization {
        let Packing { bits, group, zero, .. } = self.packing;
        let (count, per_word, mask) = (bits.count(), bits.per_word(), bits.largest());
        let number = |x: &str| format!("f32(({x}[i / {per_word}u] >> (i % {per_word}u * {count}u)) & {mask}u)");
        let mut slots = slots.ty("b_word", "u32");
        if group.is_some() {
            slots = half_loads(slots.region("SCALES", true), "scales", self.scales);
        }
        if zero {
            let load = format!("fn load_zeros(i: u32) -> f32 {{ return {}; }}", number("zeros"));
            slots = slots.region("ZEROS", true).function("load_zeros", load);
        }
        // What the numbers `q` stand for, the first of them element `i`; a scale for each column comes with the epilogue.
        let middle = format!("{}.0", bits.middle());
        let weight = |i: &str| match group {
            None => format!("q - {middle}"),
            Some(group) => {
                let zero = if zero { format!("load_zeros({i} / {group}u)") } else { middle.clone() };
                format!("load_scales({i} / {group}u) * (q - {zero})")
            }
        };
        let one = format!("let q = {}; return {};", number("b"), weight("i"));
        let four = if quads {
            let shifts = [0, 1, 2, 3].map(|place| format!("{}u", place * count)).join(", ");
            format!(
                "let word = b[i.x / {per_word}u] >> (i.x % {per_word}u * {count}u); \
                 let q = vec4<f32>((vec4<u32>(word) >> vec4<u32>({shifts})) & vec4<u32>({mask}u)); return {};",
                weight("i.x")
            )
        } else {
            format!("return vec4<f32>({});", ["x", "y", "z", "w"].map(|c| format!("load_b(i.{c})")).join(", "))
        };
        slots
            .function("load_b", format!("fn load_b(i: u32) -> f32 {{ {one} }}"))
            .function("load_b4", format!("fn load_b4(i: vec4<u32>) -> vec4<f32> {{ {four} }}"))
    }
}

/// Sets the slots of an operand that is read by single elements, if its dtype is narrow.
pub(in crate::kernel) fn half_loads(slots: Specialization, x: &str, dtype: DType) -> Specialization {
    if !dtype.is_narrow() {
        return slots;
    }
    let half = low(dtype, "w");
    let load = format!("fn load_{x}(i: u32) -> f32 {{ let w = {x}[i / 2u] >> (i % 2u * 16u); return {half}; }}");
    slots.ty(&format!("{x}_word"), "u32").function(&format!("load_{x}"), load)
}

/// Sets the slots of an operand that has eight elements in a word.
fn octs(slots: Specialization, x: &str, dtype: DType) -> Specialization {
    let (word, [low, high]) = eight(dtype);
    let all = format!("let w = {x}[i / 8u]; return Eight({low}, {high});");
    // Whoever has eights alone loads no fours.
    slots
        .ty(&format!("{x}_word"), word)
        .function(&format!("load_{x}8"), format!("fn load_{x}8(i: u32) -> Eight {{ {all} }}"))
        .function(&format!("load_{x}4"), format!("fn load_{x}4(i: vec4<u32>) -> vec4<f32> {{ return vec4<f32>(); }}"))
        .function(&format!("load_{x}"), format!("fn load_{x}(i: u32) -> f32 {{ return 0.0; }}"))
}

/// The axis of b that words lie along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    K,
    N,
}

/// Eight words of b as squares.
fn load_b8x8(along: Along) -> String {
    let (from, to) = match along {
        Along::N => ("k", "n"),
        Along::K => ("n", "k"),
    };
    let steps = ["low.x", "low.y", "low.z", "low.w", "high.x", "high.y", "high.z", "high.w"];
    let words =
        steps.iter().enumerate().map(|(w, step)| format!("let w{w} = load_b8(i + {from}.{step} + {to}.low.x); "));
    let square = |first: usize, half: &str| {
        let lines: Vec<String> = (first..first + 4).map(|w| format!("w{w}.{half}")).collect();
        let square = format!("mat4x4<f32>({})", lines.join(", "));
        if along == Along::K { format!("transpose({square})") } else { square }
    };
    // Lower and higher rows of the left columns, then of the right ones.
    let squares = match along {
        Along::N => [square(0, "low"), square(4, "low"), square(0, "high"), square(4, "high")],
        Along::K => [square(0, "low"), square(0, "high"), square(4, "low"), square(4, "high")],
    };
    let (words, squares) = (words.collect::<String>(), squares.join(", "));
    format!("fn load_b8x8(i: u32, k: Places, n: Places) -> Square {{ {words}return Square({squares}); }}")
}

/// Sets the slots of an operand of this dtype, whose quads are words or not.
fn loads(slots: Specialization, x: &str, dtype: DType, quads: bool) -> Specialization {
    let (word, one, all) = match (dtype.is_narrow(), quads) {
        (true, _) => {
            let one = |word: &str| format!("let w = {x}[{word}] >> (i % 2u * 16u); return {};", low(dtype, "w"));
            if quads {
                let all = format!("let w = {x}[i.x / 4u]; return {};", four(dtype, "w"));
                ("vec2<u32>", one("i / 4u][i / 2u % 2u"), all)
            } else {
                let each = ["x", "y", "z", "w"].map(|c| format!("load_{x}(i.{c})")).join(", ");
                ("u32", one("i / 2u"), format!("return vec4<f32>({each});"))
            }
        }
        (false, true) => ("vec4<f32>", format!("return {x}[i / 4u][i % 4u];"), format!("return {x}[i.x / 4u];")),
        (false, false) => return slots,
    };
    slots
        .ty(&format!("{x}_word"), word)
        .function(&format!("load_{x}"), format!("fn load_{x}(i: u32) -> f32 {{ {one} }}"))
        .function(&format!("load_{x}4"), format!("fn load_{x}4(i: vec4<u32>) -> vec4<f32> {{ {all} }}"))
}
