//! How operands are read and the result is written: bindings, parameters, and the slots of the shaders' parts `operands`,
//! `result`, `flat` and `eights`.

use super::problem::{A, B, BIAS, MatmulProblem, Quantized, RESIDUAL};
use crate::{
    DType,
    kernel::{
        Binding, Operand, Parameters, Specialization,
        access::{axes::Axis, elems::Elems, long::eight, matrix::Matrix, narrow::word},
        unary_wgsl,
    },
    quantize::Packing,
};

/// What a dispatch writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The result, in its dtype.
    Result,
    /// The bare sums in f32, of which `reduce.wesl` makes the result.
    Sums,
}

impl MatmulProblem {
    /// What the product is of: a, b, and the scales and zero points of b's groups.
    pub(super) fn factor_bindings(&self) -> Vec<Binding> {
        let grouped = self.quantized.filter(|b| b.packing.group.is_some());
        let extra = grouped.map_or(0, |b| 1 + usize::from(b.packing.zero));
        let inputs = self.factors.into_iter().chain(2..2 + extra);
        inputs.map(|i| Binding::read(Operand::Input(i))).collect()
    }

    /// What the result is made of: the scales of b's columns, bias, residual; and the result.
    pub(super) fn result_bindings(&self) -> Vec<Binding> {
        let packed = self.quantized.map_or(0, |b| 1 + usize::from(b.packing.zero));
        let by_column = self.quantized.filter(|b| b.packing.group.is_none()).map(|_| 2);
        let options = usize::from(self.bias.is_some()) + usize::from(self.residual.is_some());
        let inputs = by_column.into_iter().chain((2 + packed..).take(options));
        let mut bindings: Vec<Binding> = inputs.map(|i| Binding::read(Operand::Input(i))).collect();
        bindings.push(Binding::write(Operand::Output(0)));
        bindings
    }

    /// The parameters of a dispatch that takes `part` of the axis that is cut at a time. Those of bias and residual fall away
    /// where only sums are written.
    pub(super) fn parameters(&self, part: usize, scale: f32) -> Parameters {
        let sizes = [("M", self.m), ("N", self.n), ("K", self.k), ("products", self.products()), ("part", part)];
        let mut all = sizes.into_iter().fold(Parameters::new(), |all, (name, size)| all.set(name, size));
        all = all.set("scale", scale);
        let matrices = [
            (["a", "a_m", "a_k"], Some(self.a)),
            (["b", "b_k", "b_n"], Some(self.b)),
            (["bias", "bias_m", "bias_n"], self.bias),
            (["residual", "residual_m", "residual_n"], self.residual),
        ];
        for ([first, row, column], matrix) in matrices {
            if let Some(matrix) = matrix {
                all = all.set(first, matrix.offset).set(row, matrix.row).set(column, matrix.column);
            }
        }
        for (d, Axis { size, strides }) in self.batch.iter().rev().enumerate() {
            all = all.set(format!("size_d{d}"), *size);
            for (operand, stride) in ["a", "b", "bias", "residual"].into_iter().zip(*strides) {
                all = all.set(format!("{operand}_d{d}"), stride);
            }
        }
        all
    }

    /// Whether each four of a matrix's `columns` columns lie in one word (16 bytes, or 8 of 16-bit elements).
    pub(super) fn quads(&self, operand: usize, matrix: Matrix, columns: usize) -> bool {
        self.words(4, operand, matrix, columns)
    }

    /// Whether each eight of a matrix's `columns` columns lie in one word (32 bytes, or 16 of 16-bit elements).
    pub(super) fn eights(&self, operand: usize, matrix: Matrix, columns: usize) -> bool {
        self.words(8, operand, matrix, columns)
    }

    fn words(&self, elements: usize, operand: usize, matrix: Matrix, columns: usize) -> bool {
        let whole = |stride: isize| stride % elements as isize == 0;
        matrix.column == 1
            && columns.is_multiple_of(elements)
            && matrix.offset.is_multiple_of(elements)
            && whole(matrix.row)
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
        slots.value("PER", per_word(self.out)).function("write_word", write)
    }

    /// How b is read, whose quads are words or not.
    pub(super) fn loads_b(&self, slots: Specialization, quads: bool) -> Specialization {
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
}

/// Elements in a word of a result.
pub(super) fn per_word(dtype: DType) -> usize {
    DType::U32.bytes() / dtype.bytes()
}

/// The function that writes four columns.
pub(super) fn write_out4(body: &str) -> String {
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

/// Sets the slots of an operand that is read by single elements.
fn half_loads(slots: Specialization, x: &str, dtype: DType) -> Specialization {
    let elems = Elems { dtype, packed: false };
    let load = format!("fn load_{x}(i: u32) -> f32 {{ return {}; }}", elems.one(x, "i"));
    slots.ty(&format!("{x}_word"), elems.ty()).function(&format!("load_{x}"), load)
}

/// Sets the slots of a, whose rows have eight elements in a word.
pub(super) fn eights_of_a(slots: Specialization, dtype: DType) -> Specialization {
    eights(slots, "a", dtype).function("row_a", "fn row_a(i: Places) -> Eight { return load_a8(i.low.x); }")
}

/// Sets the slots of an operand that has eight elements in a word.
pub(super) fn eights(slots: Specialization, x: &str, dtype: DType) -> Specialization {
    let (word, [low, high]) = eight(dtype);
    let all = format!("let w = {x}[i / 8u]; return Eight({low}, {high});");
    // Whoever has eights alone loads no fours.
    slots
        .ty(&format!("{x}_word"), word)
        .function(&format!("load_{x}8"), format!("fn load_{x}8(i: u32) -> Eight {{ {all} }}"))
        .function(&format!("load_{x}4"), format!("fn load_{x}4(i: vec4<u32>) -> vec4<f32> {{ return vec4<f32>(); }}"))
        .function(&format!("load_{x}"), format!("fn load_{x}(i: u32) -> f32 {{ return 0.0; }}"))
}

/// Sets the slots of an operand that is read by single elements and by quads, which are words or not.
pub(super) fn loads(slots: Specialization, x: &str, dtype: DType, quads: bool) -> Specialization {
    let elems = Elems { dtype, packed: quads };
    let (one, four) = (elems.one(x, "i"), elems.four(x, ["i.x", "i.y", "i.z", "i.w"]));
    slots
        .ty(&format!("{x}_word"), elems.ty())
        .function(&format!("load_{x}"), format!("fn load_{x}(i: u32) -> f32 {{ return {one}; }}"))
        .function(&format!("load_{x}4"), format!("fn load_{x}4(i: vec4<u32>) -> vec4<f32> {{ {four} }}"))
}
