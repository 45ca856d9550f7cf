//! WGSL texts of users before a compiler sees them: words, comments, ends of lines, and how much of everything there may be.
//!
//! Compilers walk a text by recursion, and some unroll what it says: 4 KB of `!` overflow naga's stack, which ends the
//! program. So a text is bounded here first, far below what fits a stack and far above what a function of scores needs.

use std::ops::Range;

/// Bytes of a text.
pub(super) const LENGTH: usize = 8 << 10;
/// Brackets in brackets.
const NESTED: usize = 48;
/// Tokens of a statement: a sum of as many terms is as deep as it is long.
const TOKENS: usize = 384;
/// `<` of a statement: types in types, which no bracket counts.
const ANGLES: usize = 32;
/// Operators one after the other.
const RUN: usize = 8;
/// Branches by `else`: a chain of them is as deep as it is long.
const BRANCHES: usize = 48;
/// Elements of an array, those of arrays in it counted: 1 KiB of 32-bit numbers.
const ELEMENTS: usize = 256;

/// The bytes of the end of a line that begins here, if one does: what WGSL calls a line break.
pub(super) fn line_break(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'\r', b'\n', ..] => Some(2),
        // Line feed, vertical tab, form feed, carriage return.
        [b'\n' | 0x0b | 0x0c | b'\r', ..] => Some(1),
        // U+0085, next line.
        [0xc2, 0x85, ..] => Some(2),
        // U+2028 and U+2029, line and paragraph separator.
        [0xe2, 0x80, 0xa8 | 0xa9, ..] => Some(3),
        _ => None,
    }
}

/// The lines of a text without their ends, and where each begins.
pub(super) fn lines(text: &str) -> Vec<(usize, &str)> {
    let bytes = text.as_bytes();
    let (mut lines, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        match line_break(&bytes[at..]) {
            Some(length) => {
                lines.push((start, &text[start..at]));
                at += length;
                start = at;
            }
            None => at += 1,
        }
    }
    lines.push((start, &text[start..]));
    lines
}

/// WGSL's blank space.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r' | '\u{85}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
}

/// The length of the comment that begins here, if one does; block comments nest.
pub(super) fn comment(rest: &[u8]) -> Option<usize> {
    if rest.starts_with(b"//") {
        return Some((0..rest.len()).find(|&at| line_break(&rest[at..]).is_some()).unwrap_or(rest.len()));
    }
    if !rest.starts_with(b"/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let step = match &rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// Identifiers, keywords, numbers and single signs outside comments, with where they begin.
fn tokens(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            if let Some(length) = comment(&text.as_bytes()[at..]) {
                at += length;
                continue;
            }
            let rest = &text[at..];
            let next = rest.chars().next()?;
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let length = word.max(next.len_utf8());
            at += length;
            if !is_blank(next) {
                return Some((at - length, &rest[..length]));
            }
        }
        None
    })
}

/// Identifiers, keywords and numbers outside comments, with where they begin.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    tokens(text).filter(|(_, token)| token.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// An error, and its place, if there is more of something than a function of scores may have.
pub(super) fn check(text: &str) -> Result<(), (String, Range<usize>)> {
    let tokens: Vec<(usize, &str)> = tokens(text).collect();
    let (mut nested, mut branches) = (0usize, 0);
    let (mut count, mut angles, mut run) = (0, 0, 0);
    for &(at, token) in &tokens {
        let over = |n: usize, most: usize, what: &str| match n > most {
            true => Err((format!("more than {most} {what}: split it up by `let`"), at..at + token.len())),
            false => Ok(()),
        };
        run = if matches!(token, "!" | "-" | "~" | "&" | "*" | "+") { run + 1 } else { 0 };
        over(run, RUN, "operators in a row")?;
        match token {
            "(" | "[" | "{" => nested += 1,
            ")" | "]" | "}" => nested = nested.saturating_sub(1),
            "<" => angles += 1,
            "else" => branches += 1,
            _ => {}
        }
        over(nested, NESTED, "brackets in brackets")?;
        over(branches, BRANCHES, "branches by `else`")?;
        over(angles, ANGLES, "`<` in a statement")?;
        (count, angles) = match token {
            ";" | "{" | "}" => (0, 0),
            // A part of a number or of the name of a member.
            "." => (count, angles),
            _ => (count + 1, angles),
        };
        over(count, TOKENS, "words and signs in a statement")?;
    }
    check_arrays(&tokens)
}

/// An error if an array is larger than a function may have, or if its size is no plain number: compilers write zeros out.
fn check_arrays(tokens: &[(usize, &str)]) -> Result<(), (String, Range<usize>)> {
    // Where the type ends, and its elements; arrays that are around another one are before it.
    let mut around: Vec<(usize, usize)> = Vec::new();
    for (i, pair) in tokens.windows(2).enumerate() {
        if [pair[0].1, pair[1].1] != ["array", "<"] {
            continue;
        }
        let (mut depth, mut comma, mut end) = (0usize, None, tokens.len());
        for (j, (_, token)) in tokens.iter().enumerate().skip(i + 1) {
            match *token {
                "<" | "(" | "[" => depth += 1,
                ">" | ")" | "]" => depth = depth.saturating_sub(1),
                "," if depth == 1 => comma = comma.or(Some(j)),
                _ => {}
            }
            if depth == 0 {
                end = j;
                break;
            }
        }
        around.retain(|(other, _)| *other > i);
        let place = pair[0].0..tokens.get(end).map_or(pair[0].0 + pair[0].1.len(), |(at, token)| at + token.len());
        let size = match comma.map(|comma| &tokens[comma + 1..end]) {
            Some([(_, number)] | [(_, number), (_, ",")]) => number.trim_end_matches(['u', 'i']).parse::<usize>().ok(),
            _ => None,
        };
        let Some(size) = size else {
            return Err(("the size of an array is a plain number, as in `array<f32, 8>`".into(), place));
        };
        let all = around.iter().fold(size, |all, (_, size)| all.saturating_mul(*size));
        if all > ELEMENTS {
            return Err((format!("an array of {all} elements: a function may have {ELEMENTS}"), place));
        }
        around.push((end, size));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_in_wgsl() {
        let text = "a\nb\r\nc\rd\u{b}e\u{c}f\u{85}g\u{2028}h\u{2029}i";
        let found: String = lines(text).into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("|");
        assert_eq!(found, "a|b|c|d|e|f|g|h|i");
        assert_eq!(lines("\n\n").iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2]);
        // Other control characters end nothing.
        assert_eq!(lines("a\u{1c}b\u{2027}c").len(), 1);
    }

    #[test]
    fn comments_end_with_the_line() {
        for end in ["\n", "\r\n", "\r", "\u{b}", "\u{c}", "\u{85}", "\u{2028}", "\u{2029}"] {
            let text = format!("a // b{end}c /* d{end}e */ f");
            assert_eq!(words(&text).map(|(_, word)| word).collect::<Vec<_>>(), ["a", "c", "f"], "{end:?}");
        }
    }

    /// The largest of each kind that is taken, and one more.
    #[test]
    fn what_grows_without_bound_is_bounded() {
        let at_most = |of: &dyn Fn(usize) -> String, most: usize, part: &str| {
            assert_eq!(check(&of(most)), Ok(()), "{}", of(most));
            let (message, _) = check(&of(most + 1)).expect_err(part);
            assert!(message.contains(part), "{message}");
        };
        at_most(&|n| format!("{}x", "!".repeat(n)), RUN, "more than 8 operators in a row");
        at_most(&|n| format!("{}x", "- ".repeat(n)), RUN, "operators in a row");
        at_most(&|n| format!("{}x{}", "(".repeat(n), ")".repeat(n)), NESTED, "more than 48 brackets in brackets");
        at_most(&|n| format!("{}{}", "{".repeat(n), "}".repeat(n)), NESTED, "brackets in brackets");
        at_most(&|n| format!("x{}", "[0]".repeat(n)), (TOKENS - 1) / 3, "more than 384 words and signs in a statement");
        at_most(&|n| format!("x{}", " + x".repeat(n)), (TOKENS - 1) / 2, "words and signs");
        at_most(&|n| "vec2<".repeat(n), ANGLES, "more than 32 `<` in a statement");
        at_most(&|n| format!("if a {{}}{}", " else if b {}".repeat(n)), BRANCHES, "more than 48 branches by `else`");
        at_most(&|n| format!("array<f32, {n}>()"), ELEMENTS, "an array of 257 elements");
        at_most(&|n| format!("array<array<f32, {n}u>, 16,>"), ELEMENTS / 16, "an array of 272 elements");
        // Statements are counted one by one.
        assert_eq!(check(&"let a = b + c - d;".repeat(400)), Ok(()));
        assert_eq!(check(&"array<f32, 256>();".repeat(9)), Ok(()), "their sum is for later");
        for odd in
            ["array<f32, 1 + 1>", "array<f32, n>", "array<f32>", "array<f32, 99999999999999999999>", "array<f32, 0x10>"]
        {
            let (message, place) = check(odd).expect_err(odd);
            assert!(message.contains("plain number"), "{message}");
            assert_eq!(place, 0..odd.len());
        }
    }
}
