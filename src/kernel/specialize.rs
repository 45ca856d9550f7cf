use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Error, Result};

/// The text of a complete WGSL module. Equal text is the same pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The shader's file, for messages and labels: `matmul_tiled`.
    pub name: &'static str,
    /// The specialised module.
    pub wgsl: String,
    /// Every index is proved in range and every loop ends (the argument stands in the shader's head), so checks of bounds
    /// and loops may be left out. Only the kernels of this crate can say so.
    pub(crate) trusted: bool,
}

impl Source {
    /// A module that runs with all checks. Its entry point is `main`; see [`Launch`](super::Launch) for its bindings.
    pub fn new(name: &'static str, wgsl: impl Into<String>) -> Self {
        Source { name, wgsl: wgsl.into(), trusted: false }
    }
}

/// Fills the slots of a shader file. See `shaders/README.md` for what a slot is.
///
/// Each file is a complete, valid module as it stands; a specialisation only replaces marked lines:
///
/// ```wgsl
/// const BR: u32 = 16u; // @slot BR: query rows of a workgroup      <- value
/// alias elem = f32; // @slot elem: f32 | f16                        <- type
/// // @slot activation: what happens to each result                  <- function: the next line is replaced
/// fn activation(x: f32) -> f32 { return x; }
/// // @region BIAS                                                   <- kept if the region is on (`!BIAS`: if off)
/// @group(0) @binding(3) var<storage, read> bias: array<f32>;
/// // @end
/// // @unroll k KT                                                   <- repeated, `_k0` and `/*k*/0u` counted up
/// let b_k0 = b[base + /*k*/0u];
/// // @end
/// ```
///
/// Unrolls and regions nest in any order.
///
/// A missing, repeated or unknown slot is an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Specialization {
    name: &'static str,
    template: Template,
    slots: BTreeMap<String, String>,
    regions: BTreeSet<String>,
    trusted: bool,
}

/// The text of a shader file. It is part of the program, so where it lies tells it from others.
#[derive(Clone, Copy, Debug)]
struct Template(&'static str);

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Template {}

impl std::hash::Hash for Template {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

/// How many sources are remembered, which is some megabytes of text.
const KNOWN_SOURCES: usize = 512;

impl Specialization {
    /// Starts from a file of `shaders/`: its name without the extension, and its text.
    pub fn new(name: &'static str, template: &'static str) -> Self {
        Specialization {
            name,
            template: Template(template),
            slots: BTreeMap::new(),
            regions: BTreeSet::new(),
            trusted: false,
        }
    }

    /// Sets a value slot: a `const` of type `u32`, `i32`, `f32` or `bool`, which keeps its type.
    pub fn value(mut self, slot: &str, value: impl std::fmt::Display) -> Self {
        self.slots.insert(slot.into(), value.to_string());
        self
    }

    /// Sets a type slot: the right side of an `alias`.
    pub fn ty(mut self, slot: &str, wgsl_type: &str) -> Self {
        self.slots.insert(slot.into(), wgsl_type.into());
        self
    }

    /// Sets a function slot: the complete one-line function that replaces the default.
    pub fn function(mut self, slot: &str, definition: impl Into<String>) -> Self {
        self.slots.insert(slot.into(), definition.into());
        self
    }

    /// Turns a region on; regions are off unless this is called.
    pub fn region(mut self, region: &str, on: bool) -> Self {
        if on {
            self.regions.insert(region.into());
        }
        self
    }

    /// Says that the shader's head proves every index in range and every loop finite.
    pub(crate) fn trusted(mut self) -> Self {
        self.trusted = true;
        self
    }

    /// The module with every slot filled. Bindings are renumbered from 1 in order of appearance, so that a region that
    /// is off leaves no gap. Slots that are not set keep the file's default.
    ///
    /// Sources are remembered: a graph that is lowered again, for other shapes, finds the texts that it had.
    pub fn source(self) -> Result<Arc<Source>> {
        static KNOWN: Mutex<Option<HashMap<Specialization, Arc<Source>>>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if let Some(source) = known.get(&self) {
            return Ok(source.clone());
        }
        let source = Arc::new(self.expand()?);
        if known.len() >= KNOWN_SOURCES {
            known.clear();
        }
        known.insert(self, source.clone());
        Ok(source)
    }

    fn expand(&self) -> Result<Source> {
        let error = |line: usize, message: String| Error::Shader {
            kernel: format!("{}.wgsl:{}", self.name, line + 1),
            message,
        };
        let lines: Vec<&str> = self.template.0.lines().collect();
        let mut used = BTreeSet::new();
        let mut regions = BTreeSet::new();
        let mut out = String::with_capacity(self.template.0.len());
        // Open regions and whether each is on; an unroll holds its lines until its end, and may hold another.
        let mut open: Vec<(usize, bool)> = Vec::new();
        let mut unrolls: Vec<Unroll<'_>> = Vec::new();
        let mut binding = 0u32;

        let mut at = 0;
        while at < lines.len() {
            let (line, here) = (lines[at], at);
            at += 1;
            let text = line.trim();
            let live = open.iter().all(|&(_, on)| on);

            if let Some(name) = text.strip_prefix("// @region ") {
                let name = name.split([':', ' ']).next().unwrap_or_default();
                let (name, wanted) = name.strip_prefix('!').map_or((name, true), |n| (n, false));
                regions.insert(name.to_string());
                open.push((here, self.regions.contains(name) == wanted));
                continue;
            }
            if let Some(rest) = text.strip_prefix("// @unroll ") {
                let mut words = rest.split_whitespace();
                let (Some(index), Some(count)) = (words.next(), words.next()) else {
                    return Err(error(here, "expected `// @unroll INDEX COUNT`".into()));
                };
                let count = self
                    .count(&lines, count)
                    .ok_or_else(|| error(here, format!("`{count}` is no number and no value slot")))?;
                unrolls.push(Unroll { depth: open.len(), index, count, body: Vec::new() });
                continue;
            }
            if text == "// @end" {
                // Whatever was opened last ends: an unroll if no region was opened in it.
                if let Some(unroll) = unrolls.pop_if(|unroll| unroll.depth == open.len()) {
                    let lines = if live { unroll.lines() } else { Vec::new() };
                    match unrolls.last_mut() {
                        Some(outer) => outer.body.extend(lines),
                        None => lines.iter().for_each(|line| out.push_str(line)),
                    }
                } else {
                    open.pop().ok_or_else(|| error(here, "`@end` without a region or unroll".into()))?;
                }
                continue;
            }

            let mut emitted = line.to_string();
            if let Some(slot) = text.strip_prefix("// @slot ") {
                let name = slot_name(slot);
                if !used.insert(name.to_string()) {
                    return Err(error(here, format!("slot `{name}` is there twice")));
                }
                let default =
                    *lines.get(at).ok_or_else(|| error(here, format!("slot `{name}` has no function after it")))?;
                at += 1;
                emitted = self.slots.get(name).cloned().unwrap_or_else(|| default.to_string());
                if !default.trim_start().starts_with("fn ") || !emitted.trim_start().starts_with("fn ") {
                    return Err(error(here, format!("slot `{name}` takes a one-line function")));
                }
            } else if let Some((code, slot)) = line.split_once("// @slot ") {
                let name = slot_name(slot);
                if !used.insert(name.to_string()) {
                    return Err(error(here, format!("slot `{name}` is there twice")));
                }
                if let Some(value) = self.slots.get(name) {
                    emitted = fill(code, value)
                        .ok_or_else(|| error(here, format!("slot `{name}` is on no `const` or `alias`")))?;
                }
            }
            if !live {
                continue;
            }
            if let Some(renumbered) = renumber(&emitted, &mut binding) {
                emitted = renumbered;
            }
            // Browsers require this line, naga rejects it.
            if emitted.trim() == "enable subgroups;" {
                continue;
            }
            emitted.push('\n');
            match unrolls.last_mut() {
                Some(unroll) => unroll.body.push(emitted),
                None => out.push_str(&emitted),
            }
        }
        if let Some(&(start, _)) = open.last() {
            return Err(error(start, "a region without its `// @end`".into()));
        }
        if !unrolls.is_empty() {
            return Err(error(lines.len(), "an unroll without its `// @end`".into()));
        }
        if let Some(unknown) = self.slots.keys().find(|slot| !used.contains(*slot)) {
            return Err(error(0, format!("there is no slot `{unknown}`")));
        }
        if let Some(unknown) = self.regions.iter().find(|region| !regions.contains(*region)) {
            return Err(error(0, format!("there is no region `{unknown}`")));
        }
        Ok(Source { name: self.name, wgsl: out, trusted: self.trusted })
    }

    /// The count of an unroll: a number, or the value of a slot (set, or its default in the file).
    fn count(&self, lines: &[&str], count: &str) -> Option<usize> {
        if let Some(value) = self.slots.get(count) {
            return value.trim_end_matches('u').parse().ok();
        }
        if let Ok(number) = count.parse() {
            return Some(number);
        }
        lines.iter().find_map(|line| {
            let (code, slot) = line.split_once("// @slot ")?;
            (slot_name(slot) == count)
                .then(|| code.split_once('=')?.1.trim().trim_end_matches([';', 'u']).parse().ok())?
        })
    }
}

fn slot_name(slot: &str) -> &str {
    slot.split([':', ' ']).next().unwrap_or_default()
}

/// Puts a value behind the `=` of `const NAME: TYPE = …;` (with the type's suffix) or `alias NAME = …;`.
fn fill(code: &str, value: &str) -> Option<String> {
    let (left, _) = code.split_once('=')?;
    let declared = left.trim();
    if declared.starts_with("alias ") {
        return Some(format!("{}= {value};", left));
    }
    let ty = declared.strip_prefix("const ")?.split_once(':')?.1.trim();
    let literal = match ty {
        "u32" if !value.ends_with('u') => format!("{value}u"),
        "i32" if !value.ends_with('i') => format!("{value}i"),
        "f32" if !value.contains(['.', 'e', 'f']) => format!("{value}.0"),
        _ => value.to_string(),
    };
    Some(format!("{left}= {literal};"))
}

/// An unroll that is open: its lines are repeated at its end.
struct Unroll<'a> {
    /// How many regions were open where it began.
    depth: usize,
    index: &'a str,
    count: usize,
    body: Vec<String>,
}

impl Unroll<'_> {
    /// The lines at each index `i`: `_k0` becomes `_ki`, and a constant marked `/*k*/0u` becomes `iu`.
    fn lines(&self) -> Vec<String> {
        let (constant, name) = (format!("/*{}*/0", self.index), format!("_{}0", self.index));
        (0..self.count)
            .flat_map(|i| {
                let (i_constant, i_name) = (i.to_string(), format!("_{}{i}", self.index));
                let at_index = |line: &String| line.replace(&constant, &i_constant).replace(&name, &i_name);
                self.body.iter().map(at_index).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Storage bindings are numbered in order of appearance; binding 0 is the uniform block.
fn renumber(line: &str, next: &mut u32) -> Option<String> {
    if !line.contains("var<storage") {
        return None;
    }
    let (before, rest) = line.split_once("@binding(")?;
    let (_, after) = rest.split_once(')')?;
    *next += 1;
    Some(format!("{before}@binding({next}){after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "\
enable subgroups;
const BR: u32 = 16u; // @slot BR: rows
alias elem = f32; // @slot elem: f32 | f16
@group(0) @binding(1) var<storage, read> a: array<elem>;
// @region BIAS
@group(0) @binding(2) var<storage, read> bias: array<f32>;
// @end
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
// @slot activation: applied to each result
fn activation(x: f32) -> f32 { return x; }
// @unroll k BR
let b_k0 = a[/*k*/0u];
// @end
";

    #[test]
    fn fills_values_types_functions_regions_and_unrolls() {
        let source = Specialization::new("t", TEMPLATE)
            .value("BR", 2)
            .ty("elem", "f16")
            .function("activation", "fn activation(x: f32) -> f32 { return max(x, 0.0); }")
            .source()
            .expect("every slot exists");
        assert_eq!(
            source.wgsl,
            "const BR: u32 = 2u;\nalias elem = f16;\n@group(0) @binding(1) var<storage, read> a: array<elem>;\n\
             @group(0) @binding(2) var<storage, read_write> out: array<f32>;\n\
             fn activation(x: f32) -> f32 { return max(x, 0.0); }\nlet b_k0 = a[0u];\nlet b_k1 = a[1u];\n"
        );
        let with_bias = Specialization::new("t", TEMPLATE).region("BIAS", true).source().expect("the region exists");
        assert!(with_bias.wgsl.contains("@binding(3) var<storage, read_write> out"));
        assert_eq!(with_bias.wgsl.matches("let b_k").count(), 16);
    }

    #[test]
    fn unrolls_and_regions_nest() {
        let template = "\
// @unroll m 2
let a_m0 = /*m*/0u;
// @region B
// @unroll n 2
acc_m0_n0 += a_m0 * b_n0;
// @end
// @end
// @region C
c_m0;
// @end
// @end
// @region C
// @unroll m 9
c_m0;
// @end
// @end
";
        let source = Specialization::new("t", template).region("B", true).source().expect("all ends match");
        assert_eq!(
            source.wgsl,
            "let a_m0 = 0u;\nacc_m0_n0 += a_m0 * b_n0;\nacc_m0_n1 += a_m0 * b_n1;\n\
             let a_m1 = 1u;\nacc_m1_n0 += a_m1 * b_n0;\nacc_m1_n1 += a_m1 * b_n1;\n"
        );
    }

    #[test]
    fn unknown_repeated_and_unclosed_are_errors() {
        let message = |s: Specialization| s.source().expect_err("must be refused").to_string();
        assert_eq!(
            message(Specialization::new("t", TEMPLATE).value("BC", 1)),
            "shader t.wgsl:1: there is no slot `BC`"
        );
        assert_eq!(
            message(Specialization::new("t", TEMPLATE).region("MASK", true)),
            "shader t.wgsl:1: there is no region `MASK`"
        );
        let twice = "const A: u32 = 1u; // @slot A: x\nconst B: u32 = 1u; // @slot A: x\n";
        assert_eq!(message(Specialization::new("t", twice)), "shader t.wgsl:2: slot `A` is there twice");
        assert!(message(Specialization::new("t", "// @region X\n")).contains("without its `// @end`"));
        assert!(message(Specialization::new("t", "// @end\n")).contains("without a region"));
        let no_function = "// @slot f: a function\nlet x = 1;\n";
        assert!(message(Specialization::new("t", no_function)).contains("takes a one-line function"));
    }
}
