//! WGSL of users: functions of scores and masks, taken apart and put together. What is taken must make a kernel that compiles.

use arbitrary::{Result, Unstructured};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use tilewise::{
    DType, Graph,
    graph::{AttentionArgs, Mask, MaskMod, ScoreMod},
    kernel::Profile,
    lower::{self, Options},
};

use super::{Outcome, Target, json};

pub(super) const TARGET: Target = Target { name: "function", make, check };

const SCORES: [&str; 9] = [
    "score * 0.5",
    "30.0 * tanh(score / 30.0)",
    "score - 0.1 * f32(abs(i - j))",
    "score + table[h * 9 + clamp(j - position, -4, 4) + 4]",
    "let half = score / 2.0;\nreturn select(half, score, score > 0.0);",
    "if h % 2 == 0 {\n  return score;\n}\nreturn score * 0.5;",
    "var a: array<f32, 4>; a[1] = score; return a[1] + a[2];",
    "switch i % 3 { case 0: { return score; } default: { return -score; } }",
    "// a comment\nscore /* and /* another */ */ + 1.0",
];

const MASKS: [&str; 6] = [
    "i == j",
    "i / 4 == j / 4",
    "abs(i - j) < 2 || j == k_len - 1",
    "(k_len - j) % 2 == 0 || q_len == 0",
    "table[b * 7 + i] == table[b * 7 + j]",
    "let odd = i % 2 == 1; return odd && h_kv == 0;",
];

/// What WGSL is made of, and what must not get in.
const TOKENS: [&str; 113] = [
    "score",
    "b",
    "h",
    "h_kv",
    "i",
    "j",
    "position",
    "q_len",
    "k_len",
    "table",
    "table[",
    "table[i]",
    "table(i)",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ";",
    ",",
    ".",
    ":",
    "->",
    "@",
    "<",
    ">",
    "=",
    "==",
    "!=",
    "<=",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&",
    "|",
    "^",
    "~",
    "!",
    "&&",
    "||",
    "<<",
    ">>",
    "+=",
    "++",
    "_",
    "let a = ",
    "var a = ",
    "var a: f32;",
    "const c = 1.0;",
    "var a: array<f32, 4>;",
    "var a: array<f32, 4000000>;",
    "a[i]",
    "a[1]",
    "array<f32, 2>(1.0, score)",
    "return ",
    "return score;",
    "if ",
    "else ",
    "for (;;) { }",
    "while true { }",
    "loop { }",
    "break;",
    "continue;",
    "discard;",
    "switch i { default: { } }",
    "fn f() { }",
    "struct S { a: f32 }",
    "enable f16;",
    "f32(",
    "i32(",
    "u32(",
    "bool(",
    "f16(",
    "vec4<f32>(",
    "vec2(",
    ".x",
    ".xyzw",
    "mat2x2<f32>(",
    "abs(",
    "min(",
    "max(",
    "clamp(",
    "select(",
    "exp(",
    "pow(",
    "tanh(",
    "sqrt(",
    "dot(",
    "dpdx(",
    "workgroupBarrier();",
    "subgroupAdd(",
    "atomicAdd(",
    "bitcast<f32>(",
    "0",
    "1",
    "1.0",
    "2147483647",
    "-2147483648",
    "4294967296",
    "1e39",
    "0x7f800000u",
    "1f",
    "//",
    "/*",
    "*/",
    "\n",
    "\r",
    "\u{2028}",
    "é",
];

/// The text of a function of masks or of scores.
pub(super) fn function(u: &mut Unstructured<'_>, mask: bool) -> Result<Vec<u8>> {
    let first: &str = if mask { u.choose(&MASKS)? } else { u.choose(&SCORES)? };
    let mut text = first.as_bytes().to_vec();
    while !u.ratio(1, 4u8)? {
        let at = boundary(&text, u.arbitrary::<u16>()? as usize % (text.len() + 1));
        match u.int_in_range(0..=11u8)? {
            0..=4 => {
                let token = u.choose(&TOKENS)?.as_bytes();
                text.splice(at..at, token.iter().copied());
            }
            5 => {
                let to = boundary(&text, (at + u.int_in_range(1..=9usize)?).min(text.len()));
                text.drain(at.min(to)..to);
            }
            6 => {
                let other = if u.arbitrary()? { u.choose(&SCORES)?.as_bytes() } else { u.choose(&MASKS)?.as_bytes() };
                text.splice(at..at, other.iter().copied());
            }
            7 => {
                // The whole as an operand of something.
                let (open, close) = *u.choose(&[("(", ")"), ("abs(", ")"), ("-(", ")"), ("{", "}"), ("!(", ")")])?;
                text.splice(0..0, open.bytes());
                text.extend(close.bytes());
            }
            8 => {
                // Depth and length, up to what a stack might not take.
                let count = *u.choose(&[3usize, 20, 60, 130, 1000, 20_000])?;
                let (open, close) =
                    *u.choose(&[("(", ")"), ("-", ""), ("!", ""), ("/*", "*/"), ("{", "}"), ("a.", "")])?;
                let repeated = open.repeat(count) + "score" + &close.repeat(count);
                text.splice(at..at, repeated.bytes());
            }
            9 => json::garble(u, &mut text)?,
            10 => {
                let token = u.choose(&TOKENS)?.as_bytes().to_vec();
                let to = boundary(&text, (at + token.len()).min(text.len()));
                text.splice(at.min(to)..to, token);
            }
            _ => {
                let name = "x".repeat(u.int_in_range(1..=300)?);
                text.splice(0..0, format!("let {name} = score;\n").bytes());
            }
        }
    }
    Ok(text)
}

/// The start of the character that this place is in.
fn boundary(text: &[u8], at: usize) -> usize {
    (0..=at).rev().find(|&at| text.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)).unwrap_or(0)
}

/// The first byte says which kind it is.
fn make(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mask = u.arbitrary()?;
    let mut input = vec![if mask { b'm' } else { b's' }];
    input.extend(function(u, mask)?);
    Ok(input)
}

fn check(input: &[u8]) -> std::result::Result<Outcome, String> {
    let Some((kind, text)) = input.split_first() else { return Ok(Outcome::Refused) };
    let Ok(text) = std::str::from_utf8(text) else { return Ok(Outcome::Refused) };
    let mut g = Graph::new();
    let built = |g: &mut Graph| -> tilewise::Result<()> {
        let (q, k) = (g.input("q", DType::F32, [2, 2, 3, 8])?, g.input("k", DType::F32, [2, 1, 5, 8])?);
        let table = g.input("table", DType::F32, [9])?;
        let args = match kind {
            b'm' => {
                let function = MaskMod::wgsl(text)?;
                let reads = function.uses_table();
                let mask = Mask::function(function);
                AttentionArgs::from(if reads { mask & Mask::table(table) } else { mask })
            }
            _ => {
                let function = ScoreMod::wgsl(text)?;
                let reads = function.uses_table();
                let args = AttentionArgs::from(Mask::none()).score_mod(function);
                if reads { args.score_table(table) } else { args }
            }
        };
        let out = g.attention(q, k, k, args)?;
        g.output("out", out)
    };
    match built(&mut g) {
        Err(error) if error.to_string().trim().is_empty() => return Err("it is refused without a word".into()),
        Err(_) => return Ok(Outcome::Refused),
        Ok(()) => {}
    }
    let written = g.to_json().map_err(|error| format!("the graph can't be written: {error}"))?;
    match Graph::from_json(&written) {
        Ok(again) if again == g => {}
        Ok(_) => return Err("reading what was written gives another graph".into()),
        Err(error) => return Err(format!("what was taken is refused when it comes back: {error}")),
    }
    let program = match lower::lower(&g, &Profile::portable(), &Options::default()) {
        Ok(program) => program,
        Err(error) => return Err(format!("what was taken does not lower: {error}")),
    };
    for launch in program.steps.iter().flat_map(|step| &step.kernel.launches) {
        let source = &launch.source.wgsl;
        let module = naga::front::wgsl::parse_str(source)
            .map_err(|error| format!("the kernel is no WGSL: {}", error.emit_to_string(source)))?;
        Validator::new(ValidationFlags::all(), Capabilities::empty())
            .validate(&module)
            .map_err(|error| format!("the kernel is not valid: {}", error.emit_to_string(source)))?;
    }
    Ok(Outcome::Whole)
}
