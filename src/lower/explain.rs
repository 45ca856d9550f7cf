//! Programs as text.

use std::fmt::{self, Write};

use super::{Buffer, BufferId, Program, Role, Step};
use crate::kernel::Verdict;

/// Columns are padded to at most so many characters; what is longer stands there whole.
const WIDEST: usize = 160;
/// Operands of a step that are named.
const LISTED: usize = 16;

/// The steps in order, each with its kernel, the variant and why it, what it computes, reads and writes; the notes of the
/// passes; and the memory plan.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flops = self.steps.iter().map(Step::flops).fold(0, u64::saturating_add);
        let moved = self.steps.iter().map(Step::bytes).fold(0, u64::saturating_add);
        writeln!(
            f,
            "{}, {}{}, {}, {} moved",
            count(self.steps.len(), "step"),
            count(self.dispatches(), "dispatch"),
            if self.submissions.len() > 1 {
                format!(" in {} submissions", self.submissions.len())
            } else {
                String::new()
            },
            flop(flops),
            bytes(moved)
        )?;
        let rows: Vec<[String; 7]> = self.steps.iter().enumerate().map(|(i, step)| self.row(i, step)).collect();
        let head = ["", "kernel", "variant", "problem", "reads → writes", "FLOP", "moved"].map(String::from);
        let width = |column: usize| {
            let widths = rows.iter().chain([&head]).map(|row| row[column].chars().count());
            widths.max().unwrap_or_default().min(WIDEST)
        };
        let widths: [usize; 7] = std::array::from_fn(width);
        let line = |f: &mut fmt::Formatter<'_>, row: &[String; 7]| {
            let mut text = String::new();
            for (cell, width) in row.iter().zip(widths) {
                write!(text, "{cell:<width$}  ")?;
            }
            writeln!(f, "{}", text.trim_end())
        };
        writeln!(f, "\nSteps")?;
        line(f, &head)?;
        let indent = widths[0] + 2;
        for (row, step) in rows.iter().zip(&self.steps) {
            line(f, row)?;
            writeln!(f, "{:indent$}computes {}", "", step.covers.join(", "))?;
            writeln!(f, "{:indent$}{}: {}", "", step.variant, step.reason)?;
            for other in step.candidates.iter().filter(|other| other.variant != step.variant) {
                let (Verdict::Usable(reason) | Verdict::Refused(reason)) = &other.verdict;
                let not = if other.is_usable() { "could run" } else { "can't run" };
                writeln!(f, "{:indent$}{} {not}: {reason}", "", other.variant)?;
            }
        }
        for (title, applied) in [("Applied", true), ("Not applied", false)] {
            let mut notes = self.notes.iter().filter(|note| note.applied == applied).peekable();
            if notes.peek().is_some() {
                writeln!(f, "\n{title}")?;
            }
            for note in notes {
                writeln!(f, "  {}, `{}`: {}", note.rule, note.value, note.reason)?;
            }
        }
        writeln!(f, "\nMemory")?;
        let of = |wanted: fn(&Role) -> bool| -> (usize, u64) {
            let found = self.buffers.iter().filter(|buffer| wanted(&buffer.role));
            found.fold((0, 0), |(n, sum), buffer| (n + 1, sum + buffer.bytes))
        };
        let mut role = |name: &str, wanted: fn(&Role) -> bool| {
            let (n, sum) = of(wanted);
            writeln!(f, "  {}: {}", count(n, name), bytes(sum))
        };
        role("input", |role| matches!(role, Role::Input(_)))?;
        role("parameter", |role| matches!(role, Role::Parameter(_)))?;
        role("constant", |role| matches!(role, Role::Constant(_)))?;
        if self.buffers.iter().any(|buffer| matches!(buffer.role, Role::State { .. })) {
            role("state", |role| matches!(role, Role::State { .. }))?;
        }
        role("output", |role| matches!(role, Role::Output(_)))?;
        let (temporaries, naive) = of(|role| matches!(role, Role::Temporary(_)));
        writeln!(
            f,
            "  {} in {}: {} at the peak; {naive} without sharing; {unfused} without fusion either",
            count(temporaries, "temporary"),
            count(self.allocations.len(), "allocation"),
            bytes(self.peak_bytes()),
            naive = bytes(naive),
            unfused = bytes(self.unfused_bytes),
        )?;
        let lifetimes = self.lifetimes();
        let mut members: Vec<Vec<String>> = vec![Vec::new(); self.allocations.len()];
        for (buffer, (first, last)) in self.buffers.iter().zip(lifetimes) {
            let Role::Temporary(allocation) = buffer.role else { continue };
            if let Some(members) = members.get_mut(allocation) {
                members.push(match first == last {
                    true => format!("{} (step {first})", buffer.name),
                    false => format!("{} (steps {first} to {last})", buffer.name),
                });
            }
        }
        for (i, (&size, members)) in self.allocations.iter().zip(members).enumerate() {
            writeln!(f, "  allocation {i}, {}: {}", bytes(size), members.join(", "))?;
        }
        Ok(())
    }
}

impl Program {
    /// The WGSL of a step: its dispatches in order, each under a comment with its label, bindings, parameters and grid.
    /// `None` if there is no such step.
    pub fn wgsl(&self, step: usize) -> Option<String> {
        let step = self.steps.get(step)?;
        let mut text = String::new();
        for launch in &step.kernel.launches {
            let [x, y, z] = launch.grid;
            text += &format!("// {} {}: {}\n// grid {x} × {y} × {z}", step.family, launch.label, launch.source.name);
            text += &format!(", {} words of parameters\n", launch.params.len());
            for (i, binding) in launch.bindings.iter().enumerate() {
                let Buffer { name, dtype, shape, .. } = &self.buffers[step.buffer(binding.operand).0];
                text += &format!("// binding {}: {dtype} {shape} `{name}`, {:?}\n", i + 1, binding.access);
            }
            text += launch.source.wgsl.trim_end();
            text += "\n\n";
        }
        text.truncate(text.trim_end().len());
        Some(text + "\n")
    }

    /// The first and the last step that uses each buffer.
    fn lifetimes(&self) -> Vec<(usize, usize)> {
        let mut lifetimes: Vec<Option<(usize, usize)>> = vec![None; self.buffers.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for id in [&step.inputs, &step.outputs, &step.workspace].into_iter().flatten() {
                lifetimes[id.0].get_or_insert((i, i)).1 = i;
            }
        }
        lifetimes.into_iter().map(Option::unwrap_or_default).collect()
    }

    fn row(&self, i: usize, step: &Step) -> [String; 7] {
        let names = |ids: &[BufferId]| {
            let shown =
                ids.iter().take(LISTED).map(|id| self.buffers[id.0].name.as_str()).collect::<Vec<_>>().join(" ");
            if ids.len() > LISTED { format!("{shown} and {} more", ids.len() - LISTED) } else { shown }
        };
        let mut operands = format!("{} → {}", names(&step.inputs), names(&step.outputs));
        if let Some(input) = step.in_place {
            operands += &format!(" (in place of {})", self.buffers[step.inputs[input].0].name);
        }
        [
            i.to_string(),
            step.family.into(),
            step.variant.into(),
            step.summary.clone(),
            operands,
            flop(step.flops()),
            bytes(step.bytes()),
        ]
    }
}

fn count(n: usize, what: &str) -> String {
    let plural = match what {
        _ if n == 1 => what.to_string(),
        "dispatch" => "dispatches".into(),
        "temporary" => "temporaries".into(),
        _ => format!("{what}s"),
    };
    format!("{n} {plural}")
}

fn bytes(n: u64) -> String {
    scaled(n, 1024.0, ["B", "KiB", "MiB", "GiB"])
}

fn flop(n: u64) -> String {
    scaled(n, 1000.0, ["FLOP", "kFLOP", "MFLOP", "GFLOP"])
}

/// Three digits and a unit.
fn scaled(n: u64, base: f64, units: [&str; 4]) -> String {
    let (mut value, mut unit) = (n as f64, 0);
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", units[unit])
}
