//! WGSL text of users: checked before it becomes part of a shader, with errors that point into their lines.

use std::{collections::BTreeSet, error, sync::Arc};

use naga::{
    Block, Expression, Handle, Module, Span, Statement, TypeInner,
    valid::{CallError, Capabilities, FunctionError, ValidationFlags, Validator},
};

use super::lexis::{self, comment, is_blank, words};
use crate::{Error, Result};

/// Bytes of the variables and arrays of a function: a driver gives them to each of thousands of invocations.
const LOCAL_BYTES: u32 = 1024;

/// The body of a function: an expression, or statements with a `return`.
#[derive(Clone, Debug)]
pub(super) struct Text {
    given: Arc<str>,
    /// As long as `given`: comments are blank, and `table[…]` is the call `table(…)`.
    clean: Arc<str>,
    /// Statements, not an expression.
    statements: bool,
}

impl Text {
    /// Checks a text as the body of a function with these parameters and this result; `kind` names it in errors.
    pub(super) fn new(given: &str, kind: &str, parameters: &str, result: &str) -> Result<Self> {
        if given.len() > lexis::LENGTH {
            let (bytes, most) = (given.len(), lexis::LENGTH);
            return Err(Error::op(kind, format!("the text has {bytes} bytes, at most {most} are taken")));
        }
        let source = Source { kind, given };
        let (clean, end) = source.clean()?;
        if clean.trim_matches(is_blank).is_empty() {
            return Err(Error::op(kind, "the text is empty"));
        }
        lexis::check(&clean).map_err(|(message, place)| source.fault(&message, "", place))?;
        let statements = words(&clean).any(|(_, word)| word == "return");
        if let (false, Some(at)) = (statements, end) {
            let message = "statements need a `return`; an expression has no `;`";
            return Err(source.fault(message, "", at..at + 1));
        }
        let text = Text { given: given.into(), clean: clean.into(), statements };
        text.compile(&source, parameters, result)?;
        Ok(text)
    }

    pub(super) fn given(&self) -> &str {
        &self.given
    }

    /// Whether a name occurs in it.
    pub(super) fn uses(&self, name: &str) -> bool {
        words(&self.clean).any(|(_, word)| word == name)
    }

    /// The body on one line; `table` is the function that gives an element of the table.
    pub(super) fn body(&self, table: &str) -> String {
        let mut text = String::new();
        let mut done = 0;
        for (at, _) in words(&self.clean).filter(|(_, word)| *word == "table") {
            text = text + &self.clean[done..at] + table;
            done = at + "table".len();
        }
        text += &self.clean[done..];
        let text = text.split(is_blank).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let text = with_values(&text);
        if self.statements { text } else { format!("return ({text});") }
    }

    /// Asks naga, in a module that has nothing else to offer.
    fn compile(&self, source: &Source<'_>, parameters: &str, result: &str) -> Result<()> {
        let (open, close) = if self.statements { ("", "") } else { ("return (", ");") };
        let head = format!(
            "fn table(index: i32) -> f32 {{ return f32(index); }}\nfn user({parameters}) -> {result} {{ {open}"
        );
        let shader = format!("{head}{}\n{close} }}\n", self.clean);
        let at = |span: Span| {
            let range = span.to_range().unwrap_or(0..0);
            range.start.saturating_sub(head.len())..range.end.saturating_sub(head.len())
        };
        let module = naga::front::wgsl::parse_str(&shader).map_err(|e| {
            let (span, label) = e.labels().next().unwrap_or((Span::UNDEFINED, ""));
            let label = if label == "see msg" { "" } else { label };
            source.fault(&parser_message(e.message(), e.notes().next()), label, at(span))
        })?;
        // Brackets match, so that nothing can have been declared beside the two.
        let user = match module.functions.iter().find(|(_, function)| function.name.as_deref() == Some("user")) {
            Some((user, _)) if module.functions.len() == 2 && module.global_variables.is_empty() => user,
            _ => return Err(Error::op(source.kind, "the text declares something beside the function")),
        };
        let scan = Scan { module: &module, user };
        scan.block(&module.functions[user].body)
            .and_then(|()| scan.expressions())
            .and_then(|()| scan.memory())
            .map_err(|(message, span)| source.fault(&message, "", at(span)))?;
        let checked = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
        checked.map(|_| ()).map_err(|e| {
            let mut cause: &dyn error::Error = e.as_inner();
            while let Some(next) = cause.source() {
                cause = next;
            }
            let message = if matches!(cause.downcast_ref(), Some(FunctionError::InvalidReturnType { .. })) {
                format!("the result is no {result}, or there is a way through without one")
            } else if matches!(cause.downcast_ref(), Some(CallError::ArgumentType { .. })) {
                "the index of `table` is no i32".into()
            } else {
                readable(&cause.to_string())
            };
            let spans: Vec<_> = e.spans().map(|(span, _)| at(*span)).collect();
            let innermost = spans.into_iter().min_by_key(ExactSizeIterator::len).unwrap_or(0..0);
            source.fault(&message, "", innermost)
        })
    }
}

/// The text and what it is called.
struct Source<'a> {
    kind: &'a str,
    given: &'a str,
}

impl Source<'_> {
    /// The text with blank comments and calls of `table`, and where its first `;` is.
    fn clean(&self) -> Result<(String, Option<usize>)> {
        let mut bytes = self.given.as_bytes().to_vec();
        // Open brackets, and whether each belongs to the table.
        let mut open: Vec<(usize, u8, bool)> = Vec::new();
        let (mut at, mut end, mut after_table) = (0, None, false);
        let tables: BTreeSet<usize> =
            words(self.given).filter(|(_, word)| *word == "table").map(|(at, word)| at + word.len()).collect();
        while at < bytes.len() {
            let rest = &self.given.as_bytes()[at..];
            if let Some(length) = comment(rest) {
                let unclosed = rest.starts_with(b"/*") && !rest[..length].ends_with(b"*/");
                if unclosed {
                    return Err(self.fault("this comment has no end", "", at..at + 2));
                }
                bytes[at..at + length].fill(b' ');
                at += length;
                continue;
            }
            after_table |= tables.contains(&at);
            match rest[0] {
                bracket @ (b'(' | b'[' | b'{') => {
                    let table = after_table && bracket == b'[';
                    if table {
                        bytes[at] = b'(';
                    }
                    open.push((at, bracket, table));
                }
                bracket @ (b')' | b']' | b'}') => {
                    let opening = match bracket {
                        b')' => b'(',
                        b']' => b'[',
                        _ => b'{',
                    };
                    match open.pop() {
                        Some((_, kind, table)) if kind == opening => {
                            if table {
                                bytes[at] = b')';
                            }
                        }
                        Some((before, ..)) => {
                            let message =
                                format!("`{}` does not close `{}`", char::from(bracket), self.char_at(before));
                            return Err(self.fault(&message, "", at..at + 1));
                        }
                        None => {
                            let message = format!(
                                "`{}` closes nothing: the text is the body of a function, and can't end it",
                                char::from(bracket)
                            );
                            return Err(self.fault(&message, "", at..at + 1));
                        }
                    }
                }
                b';' if end.is_none() => end = Some(at),
                _ => {}
            }
            // Brackets and `;` are of one byte; what has more is blank, or a word.
            let next = self.given[at..].chars().next().unwrap_or(' ');
            after_table &= is_blank(next);
            at += next.len_utf8();
        }
        if let Some(&(at, ..)) = open.last() {
            return Err(self.fault(&format!("`{}` is never closed", self.char_at(at)), "", at..at + 1));
        }
        String::from_utf8(bytes).map(|clean| (clean, end)).map_err(|_| Error::op(self.kind, "the text is no UTF-8"))
    }

    fn char_at(&self, at: usize) -> char {
        char::from(self.given.as_bytes()[at])
    }

    /// An error with the line that it is about, and a caret under the place.
    fn fault(&self, message: &str, label: &str, range: std::ops::Range<usize>) -> Error {
        let text = self.given;
        let written = text.trim_end_matches(is_blank);
        let end = written.len();
        let (start, stop, message) = if range.start >= end {
            // Where naga ran into what comes after the text.
            let message = message.split(", found ").next().unwrap_or(message);
            let found = if label.is_empty() { "" } else { ", found the end of the text" };
            (end, end, format!("{message}{found}"))
        } else {
            (range.start, range.end.clamp(range.start, end), message.to_string())
        };
        let whole = |at: usize| (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let (start, stop) = (whole(start), whole(stop));
        let lines = lexis::lines(text);
        let number = lines.partition_point(|(begin, _)| *begin <= start).max(1);
        let (line_start, line) = lines[number - 1];
        let line_end = line_start + line.len();
        // A place within the end of a line is behind it.
        let start = start.min(line_end);
        let line = line.trim_end_matches(is_blank);
        let indent: String = text[line_start..start].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(text[start..stop.clamp(start, line_end)].chars().count().max(1));
        let number = if lexis::lines(written).len() > 1 { format!("{number} | ") } else { String::new() };
        let margin = " ".repeat(number.len());
        let label = if label.is_empty() || start == end { String::new() } else { format!(" {label}") };
        Error::op(self.kind, format!("{message}\n  {number}{line}\n  {margin}{indent}{carets}{label}"))
    }
}

/// naga's message; of a text that it gives up on, in words that say what to do.
fn parser_message(message: &str, note: Option<&str>) -> String {
    match message.contains("internal") {
        true => format!(
            "the compiler gives up on this ({}): write it in smaller parts, by `let`",
            note.unwrap_or(message).to_lowercase()
        ),
        false => message.to_string(),
    }
}

/// The text with a value for each variable that is declared without one, its type's zero: Chromium gives it that once, before the
/// loop that the function is called in.
fn with_values(text: &str) -> String {
    let (mut whole, mut done) = (String::new(), 0);
    for (at, _) in words(text).filter(|(_, word)| *word == "var") {
        let statement = text[at..].split(';').next().unwrap_or_default();
        if let Some((_, ty)) = statement.split_once(':').filter(|_| !statement.contains('=')) {
            whole = whole + &text[done..at + statement.len()] + &format!(" = {}()", ty.trim());
            done = at + statement.len();
        }
    }
    whole + &text[done..]
}

/// naga's message with WGSL's names of types, and without the numbers by which it names things: ` [3]`.
fn readable(message: &str) -> String {
    let mut parts = message.split(" [");
    let first = parts.next().unwrap_or_default().to_string();
    let text = parts.fold(first, |text, part| match part.split_once(']') {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => text + rest,
        _ => text + " [" + part,
    });
    let types = [("Float", 4, "f32"), ("Sint", 4, "i32"), ("Uint", 4, "u32"), ("Bool", 1, "bool")];
    types.into_iter().fold(text, |text, (kind, width, name)| {
        text.replace(&format!("Scalar(Scalar {{ kind: {kind}, width: {width} }})"), name)
    })
}

type Found = Result<(), (String, Span)>;

/// Looks for what a function of scores must not do: the shaders around it run without checks of loops and indices, and not
/// all invocations call it.
struct Scan<'a> {
    module: &'a Module,
    user: Handle<naga::Function>,
}

impl Scan<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what naga learns is not taken either")]
    fn block(&self, block: &Block) -> Found {
        block.span_iter().try_for_each(|(statement, &span)| match statement {
            Statement::Block(inner) => self.block(inner),
            Statement::If { accept, reject, .. } => self.block(accept).and_then(|()| self.block(reject)),
            Statement::Switch { cases, .. } => cases.iter().try_for_each(|case| self.block(&case.body)),
            Statement::Emit(_)
            | Statement::Break
            | Statement::Continue
            | Statement::Return { .. }
            | Statement::Store { .. }
            | Statement::Call { .. } => Ok(()),
            Statement::Loop { .. } => Err(("loops are not taken: it runs once for each score".into(), span)),
            _ => Err(("this is not taken: an invocation computes its scores alone".into(), span)),
        })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what naga learns is not taken either")]
    fn expressions(&self) -> Found {
        let expressions = &self.module.functions[self.user].expressions;
        expressions.iter().try_for_each(|(handle, expression)| match expression {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::ZeroValue(_)
            | Expression::Compose { .. }
            | Expression::AccessIndex { .. }
            | Expression::Splat { .. }
            | Expression::Swizzle { .. }
            | Expression::FunctionArgument(_)
            | Expression::LocalVariable(_)
            | Expression::Load { .. }
            | Expression::Unary { .. }
            | Expression::Binary { .. }
            | Expression::Select { .. }
            | Expression::Relational { .. }
            | Expression::Math { .. }
            | Expression::As { .. }
            | Expression::CallResult(_) => Ok(()),
            Expression::Access { .. } => {
                let message = "the index is not constant; only `table` takes such an index";
                Err((message.into(), expressions.get_span(handle)))
            }
            _ => Err(("this is not taken in a function of scores".into(), expressions.get_span(handle))),
        })
    }
}

impl Scan<'_> {
    /// An error if variables and arrays take more memory than a function may have.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these make arrays")]
    fn memory(&self) -> Found {
        let function = &self.module.functions[self.user];
        let size = |ty| self.module.types[ty].inner.try_size(self.module.to_ctx()).unwrap_or(u32::MAX);
        let variables = function.local_variables.iter();
        let variables = variables.map(|(handle, variable)| (variable.ty, function.local_variables.get_span(handle)));
        let arrays = function.expressions.iter().filter_map(|(handle, expression)| match *expression {
            Expression::ZeroValue(ty) | Expression::Compose { ty, .. } => {
                Some((ty, function.expressions.get_span(handle)))
            }
            _ => None,
        });
        let arrays = arrays.filter(|&(ty, _)| matches!(self.module.types[ty].inner, TypeInner::Array { .. }));
        // Each by itself: most arrays are what a variable begins with.
        let (mut of_variables, mut of_arrays) = (0u32, 0u32);
        let over = |what: &str, sum: &mut u32, (ty, span)| {
            *sum = sum.saturating_add(size(ty));
            if *sum <= LOCAL_BYTES {
                return Ok(());
            }
            let most = format!("a function may have {LOCAL_BYTES}; what is larger belongs into the `table`");
            Err((format!("with this, {what} take {sum} bytes: {most}"), span))
        };
        variables.into_iter().try_for_each(|variable| over("variables", &mut of_variables, variable))?;
        arrays.into_iter().try_for_each(|array| over("arrays", &mut of_arrays, array))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(given: &str) -> Result<Text> {
        Text::new(given, "score function", "score: f32, i: i32, j: i32", "f32")
    }

    #[test]
    fn variables_get_values() {
        let body = |given: &str| text(given).unwrap_or_else(|e| panic!("{e}")).body("values");
        assert_eq!(
            body("var a: f32; var b: array<f32, 2>;\nvar c = 2.0; a = score; return a + b[1] * c;"),
            "var a: f32 = f32(); var b: array<f32, 2> = array<f32, 2>(); var c = 2.0; a = score; return a + b[1] * c;"
        );
    }

    #[test]
    fn becomes_one_line() {
        let body = |given: &str| text(given).unwrap_or_else(|e| panic!("{e}")).body("values");
        assert_eq!(body("score * 0.5"), "return (score * 0.5);");
        assert_eq!(body("score // half\n  * 0.5 // of it }"), "return (score * 0.5);");
        assert_eq!(body("table [ i + i32(table[j]) ] /* /* */ } */"), "return (values ( i + i32(values(j)) ));");
        assert_eq!(body("let far = i - j;\nreturn select(score, 0.0, far > 3);"), {
            "let far = i - j; return select(score, 0.0, far > 3);"
        });
        assert_eq!(body("var a = vec2<f32>(score, 1.0); a[1] = 2.0; return a.y;"), {
            "var a = vec2<f32>(score, 1.0); a[1] = 2.0; return a.y;"
        });
        assert!(
            text("table[i]").expect("fits").uses("table") && !text("score /* table */").expect("fits").uses("table")
        );
    }

    /// Texts, and what must be said of them: message, line and carets.
    #[test]
    fn faults_point_into_the_text() {
        let cases = [
            ("", "the text is empty", ""),
            (" // nothing", "the text is empty", ""),
            ("scor * 0.5", "no definition in scope for identifier: `scor`", "  scor * 0.5\n  ^^^^ unknown identifier"),
            ("score * ", "expected expression, found the end of the text", "  score *\n         ^"),
            (
                "score * i",
                "Operation Multiply can't work with (of type f32) and (of type i32)",
                "  score * i\n  ^^^^^^^^^",
            ),
            ("i", "the result is no f32", "  i\n  ^"),
            ("return;", "the result is no f32", "  return;\n  ^^^^^^^"),
            ("if score > 0.0 { return score; }", "or there is a way through without one", "\n  ^^^^"),
            ("score; 1.0", "statements need a `return`", "  score; 1.0\n       ^"),
            ("(score", "`(` is never closed", "  (score\n  ^"),
            ("score * [2.0)", "`)` does not close `[`", "  score * [2.0)\n              ^"),
            ("exp(i)", "wrong type passed as argument #1 to `exp`", "  exp(i)\n  ^^^"),
            ("q[0] + score", "no definition in scope for identifier: `q`", "  q[0] + score\n  ^ unknown"),
            ("p.scale", "no definition in scope for identifier: `p`", "  p.scale\n  ^ unknown"),
            ("table[1u]", "the index of `table` is no i32", "  table[1u]\n        ^^"),
            ("score = 1.0; return score;", "invalid left-hand side of assignment", "\n  ^^^^^ cannot assign"),
            ("return score; /* ", "this comment has no end", "  return score; /*\n                ^^"),
            ("dpdx(score)", "this is not taken in a function of scores", "  dpdx(score)\n  ^^^^"),
            ("while true { } return score;", "loops are not taken", "\n  ^^^^^^^^^^^^^^"),
            ("workgroupBarrier(); return score;", "an invocation computes its scores alone", "\n  ^^^^"),
            ("subgroupAdd(score)", "an invocation computes its scores alone", "\n  ^^^^"),
            ("var a = array<f32, 2>(1.0, score); return a[i];", "only `table` takes such an index", "  ^^^^"),
            ("é * 2.0 + scoré", "no definition in scope for identifier: `é`", "  é * 2.0 + scoré\n  ^ unknown"),
            (
                "if score > 0.0 {\n\treturn scor;\n}\nreturn score;",
                "no definition in scope for identifier: `scor`",
                "  2 | \treturn scor;\n      \t       ^^^^ unknown identifier",
            ),
        ];
        for (given, message, lines) in cases {
            let error = text(given).expect_err(given).to_string();
            assert!(error.starts_with("score function: ") && error.contains(message), "{given:?}:\n{error}");
            assert!(error.contains(lines), "{given:?}:\n{error}");
        }
    }

    #[test]
    fn lines_are_counted_as_wgsl_ends_them() {
        for end in ["\n", "\r\n", "\r", "\u{b}", "\u{c}", "\u{85}", "\u{2028}", "\u{2029}"] {
            let given = format!("let a = score; // half{end}return scor;{end}");
            let error = text(&given).expect_err(&given).to_string();
            let expected = "score function: no definition in scope for identifier: `scor`\n  2 | return scor;\n             ^^^^ \
                            unknown identifier";
            assert_eq!(error, expected, "{end:?}");
            let fine = format!("score // half{end} * 0.5");
            assert_eq!(text(&fine).expect("fits").body(""), "return (score * 0.5);", "{end:?}");
        }
    }

    /// What a compiler would walk by recursion, or give a driver to find room for.
    #[test]
    fn what_is_too_much_is_refused_before_a_compiler_sees_it() {
        for (given, expected) in [
            (format!("select(score, 0.0, {}(score > 0.0))", "!".repeat(4096)), "more than 8 operators in a row"),
            (format!("{}score{}", "(".repeat(2000), ")".repeat(2000)), "more than 48 brackets in brackets"),
            (format!("return score;{}{}", "{".repeat(2000), "}".repeat(2000)), "more than 48 brackets in brackets"),
            (format!("score{}", " + 1.0".repeat(1000)), "more than 384 words and signs in a statement"),
            (format!("var a: {}f32; return score;", "vec2<".repeat(1000)), "more than 32 `<` in a statement"),
            (
                format!(
                    "if score > 0.0 {{ return 1.0; }}{} return score;",
                    " else if score > 1.0 { return 2.0; }".repeat(200)
                ),
                "more than 48 branches by `else`",
            ),
            (format!("score {}", " ".repeat(100_000)), "the text has 100006 bytes, at most 8192 are taken"),
            ("var a: array<f32, 4000000>; a[1] = score; return a[1];".into(), "an array of 4000000 elements"),
            ("const n = 4000000; var a: array<f32, n>; return score;".into(), "the size of an array is a plain number"),
            (
                "var a: array<f32, 256>; var b = score; return a[0] + b;".into(),
                "with this, variables take 1028 bytes: a function may have 1024",
            ),
            (
                {
                    let array = format!("array<f32, 130>({})", "score, ".repeat(130));
                    format!("let a = {array}; let b = {array}; return a[0] + b[0];")
                },
                "with this, arrays take 1040 bytes: a function may have 1024",
            ),
        ] {
            let error = text(&given).expect_err(expected).to_string();
            assert!(error.starts_with("score function: ") && error.contains(expected), "{error}");
        }
        // As much as is taken of each compiles, in half of the stack that a browser gives.
        let most = [
            format!("select(score, 0.0, {}(score > 0.0))", "!".repeat(8)),
            format!("{}score{}", "(".repeat(40), ")".repeat(40)),
            format!("{}score{}", "-(".repeat(40), ")".repeat(40)),
            format!("score{}", " + 1.0".repeat(120)),
            format!("{} return score;{}", "{".repeat(40), "}".repeat(40)),
            format!(
                "if score > 0.0 {{ return 1.0; }}{} return score;",
                " else if score > 1.0 { return 2.0; }".repeat(48)
            ),
            "var a: array<array<f32, 16>, 16>; a[1][2] = score; return a[1][2];".into(),
            "var a = array<f32, 256>(); a[1] = score; return a[1];".into(),
        ];
        let small = std::thread::Builder::new().stack_size(512 << 10);
        let compiled = small.spawn(move || {
            most.iter().for_each(|given| drop(text(given).unwrap_or_else(|e| panic!("{given}: {e}"))));
        });
        compiled.expect("starts").join().expect("all of them compile");
    }

    #[test]
    fn what_naga_gives_up_on_is_said_in_words() {
        assert_eq!(
            parser_message("internal WGSL front end error", Some("Parser recursion limit exceeded")),
            "the compiler gives up on this (parser recursion limit exceeded): write it in smaller parts, by `let`"
        );
        assert_eq!(parser_message("expected `;`", Some("a note")), "expected `;`");
    }

    #[test]
    fn the_body_cannot_be_left() {
        for given in [
            "score } fn evil() {",
            "score); } fn evil() { _ = (1.0",
            "return score; } @compute @workgroup_size(1) fn main() {",
            "score) + (1.0",
            "/* { */ return score; }",
            "score ] [",
        ] {
            let error = text(given).expect_err(given).to_string();
            assert!(error.contains("closes nothing: the text is the body of a function, and can't end it"), "{error}");
        }
        for given in [
            "fn f() {} return score;",
            "@group(0) @binding(0) var<storage> x: f32; return x;",
            "enable f16; return 1.0;",
        ] {
            text(given).expect_err(given);
        }
    }
}
