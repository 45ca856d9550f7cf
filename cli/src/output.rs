//! How figures and tables look on a terminal.

use std::io::{self, Write as _};

use comfy_table::{CellAlignment, Table, presets};

/// `println!`, but a reader who has seen enough (`tilewise info | head`) ends the program quietly.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($text)*))) };
}
/// `print!`, likewise.
macro_rules! say_raw {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}
pub(crate) use {say, say_raw};

/// Writes to the standard output; if that is closed, there is nobody to write for.
pub(crate) fn write(text: std::fmt::Arguments<'_>) {
    if io::stdout().write_fmt(text).is_err() {
        std::process::exit(0);
    }
}

/// A table with these column heads; columns whose head starts with `>` are aligned right.
pub(crate) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(heads.iter().map(|head| head.trim_start_matches('>')));
    for (i, head) in heads.iter().enumerate() {
        if let (true, Some(column)) = (head.starts_with('>'), table.column_mut(i)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The text, or its beginning and `…`.
pub(crate) fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Seconds as `1.23 ms`.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

/// Bytes as `1.5 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::{bytes, duration, short};

    #[test]
    fn figures_carry_their_unit() {
        assert_eq!(duration(0.0123), "12.30 ms");
        assert_eq!(duration(3.2e-6), "3.2 µs");
        assert_eq!(duration(2.0), "2.00 s");
        assert_eq!(bytes(100), "100 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(128 << 20), "128.0 MiB");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(short("abcdef", 6), "abcdef");
        assert_eq!(short("äbcdefg", 6), "äbcde…");
    }
}
