//! How figures and tables look on a terminal.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
};

use comfy_table::{CellAlignment, Table, presets};

/// `println!`, but without a panic: see [`write`].
macro_rules! say {
    ($($text:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($text)*))) };
}
/// `print!`, likewise.
macro_rules! say_raw {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}
/// `eprintln!`, but without a panic: if the standard error is closed or full, nobody can be told.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::write_note(format_args!($($text)*)) };
}
pub(crate) use {note, say, say_raw};

/// Why the standard output takes no more.
static GONE: Mutex<Option<io::Error>> = Mutex::new(None);

fn gone() -> MutexGuard<'static, Option<io::Error>> {
    GONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes to the standard output. Once that fails, nothing more is written to it, but the work goes on: there may be files to
/// write. [`end`] says what became of it.
pub(crate) fn write(text: std::fmt::Arguments<'_>) {
    let mut gone = gone();
    if gone.is_none() {
        *gone = io::stdout().write_fmt(text).err();
    }
}

pub(crate) fn write_note(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Ends the program with the verdict of a command. What couldn't be printed is an error, unless the reader has seen enough
/// (`tilewise info | head`).
pub(crate) fn end(done: anyhow::Result<bool>) -> ExitCode {
    let mut gone = gone();
    if gone.is_none() {
        *gone = io::stdout().flush().err();
    }
    let printed = match gone.take() {
        Some(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(why),
        _ => Ok(()),
    };
    match (done, printed) {
        (Err(error), _) => {
            note!("error: {error:#}");
            ExitCode::FAILURE
        }
        (Ok(_), Err(why)) => {
            note!("error: the standard output can't be written: {why}");
            ExitCode::FAILURE
        }
        (Ok(true), Ok(())) => ExitCode::SUCCESS,
        (Ok(false), Ok(())) => ExitCode::FAILURE,
    }
}

/// Ends the program with what the parser of the command line has to say: help, or a mistake.
pub(crate) fn end_with_usage(message: &clap::Error) -> ExitCode {
    let printed = message.print().and_then(|()| io::stdout().flush());
    match printed {
        Err(why) if !message.use_stderr() && why.kind() != io::ErrorKind::BrokenPipe => {
            note!("error: the standard output can't be written: {why}");
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(2)),
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

/// Texts that were asked for, as `` `a` or `b` ``.
pub(crate) fn any_of(texts: &[String]) -> String {
    texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(" or ")
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
