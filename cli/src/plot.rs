//! Figures of a benchmark as an SVG: one bar a workload, as long as its GFLOP/s (or GB/s).

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// One bar: what was timed, its rate, and the text behind it.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) rate: f64,
    pub(crate) label: String,
}

/// A group of bars that share a unit.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// Draws the panels one below the other.
pub(crate) fn bars(path: &Path, title: &str, panels: &[Panel]) -> Result<()> {
    const ROW: i32 = 22;
    const HEAD: i32 = 34;
    const NAMES: i32 = 330;
    const WIDTH: i32 = 1000;
    let rows: usize = panels.iter().map(|panel| panel.bars.len()).sum();
    let height = HEAD + panels.len() as i32 * HEAD + rows as i32 * ROW + 10;
    let root = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    let fail = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    root.fill(&WHITE).map_err(|e| fail(&e))?;
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    root.draw(&Text::new(title.to_string(), (10, 10), text(16))).map_err(|e| fail(&e))?;
    let mut y = HEAD;
    for panel in panels {
        let most = panel.bars.iter().map(|bar| bar.rate).fold(f64::MIN_POSITIVE, f64::max);
        root.draw(&Text::new(panel.title.clone(), (10, y + 10), text(14))).map_err(|e| fail(&e))?;
        y += HEAD;
        for bar in &panel.bars {
            let length = (f64::from(WIDTH - NAMES - 150) * bar.rate / most) as i32;
            let filled = RGBColor(70, 110, 170).filled();
            root.draw(&Text::new(bar.name.clone(), (20, y + 3), text(13))).map_err(|e| fail(&e))?;
            root.draw(&Rectangle::new([(NAMES, y + 2), (NAMES + length.max(1), y + ROW - 4)], filled))
                .map_err(|e| fail(&e))?;
            root.draw(&Text::new(bar.label.clone(), (NAMES + length + 8, y + 3), text(13))).map_err(|e| fail(&e))?;
            y += ROW;
        }
    }
    root.present().map_err(|e| fail(&e))
}
