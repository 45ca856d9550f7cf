//! Figures as SVG: bars as long as a rate, and a roofline.

use std::{fmt::Display, path::Path};

use anyhow::{Result, anyhow};
use plotters::{coord::Shift, prelude::*};
use tilewise::{files, measure::Limit};

use super::report::{Figure, Report};
use crate::output;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const BLUE_GREY: RGBColor = RGBColor(70, 110, 170);
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(90, 90, 90),
];

fn text(at: (i32, i32), content: impl Into<String>, size: i32) -> Text<'static, (i32, i32), String> {
    Text::new(content.into(), at, ("sans-serif", size).into_font().color(&BLACK))
}

fn area(file: &Path, size: (i32, i32), report: &Report, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<()> {
    let mut picture = String::new();
    let drawn = || -> Drawn {
        let root = SVGBackend::with_string(&mut picture, (size.0 as u32, size.1 as u32)).into_drawing_area();
        root.fill(&WHITE).map_err(error)?;
        put(&root, &text((10, 10), report.place(), 13))?;
        draw(&root)?;
        root.present().map_err(error)
    };
    drawn().map_err(|error| anyhow!("{}: {error}", file.display()))?;
    Ok(files::write(file, picture)?)
}

/// Of a figure, in its unit.
type Rate = fn(&Figure) -> f64;

type Drawn = std::result::Result<(), String>;

fn error(error: impl Display) -> String {
    error.to_string()
}

fn put<'a, E>(area: &Area<'a>, element: &E) -> Drawn
where
    E: plotters::element::Drawable<SVGBackend<'a>> + 'static,
    for<'b> &'b E: plotters::element::PointCollection<'b, (i32, i32)>,
{
    area.draw(element).map_err(error)
}

/// One bar for each figure: GFLOP/s where arithmetic is the limit, GB/s elsewhere; a mark where the ceiling is.
pub(super) fn bars(report: &Report, file: &Path) -> Result<()> {
    const ROW: i32 = 20;
    const HEAD: i32 = 34;
    const NAMES: i32 = 400;
    const WIDTH: i32 = 1100;
    let by_arithmetic = |f: &&Figure| {
        matches!(f.bound.map(|b| b.limit), Some(Limit::Multiply(_) | Limit::Exponential)) || f.family == "matmul"
    };
    let (arithmetic, memory): (Vec<&Figure>, Vec<&Figure>) = report.figures.iter().partition(by_arithmetic);
    let panels = [("GFLOP/s", arithmetic, Figure::gflops as Rate), ("GB/s", memory, Figure::gbytes as Rate)];
    let height = HEAD * 3 + ROW * report.figures.len() as i32 + 10;
    area(file, (WIDTH, height), report, |root| {
        let mut y = HEAD;
        for (unit, figures, rate_of) in &panels {
            put(root, &text((10, y + 10), *unit, 14))?;
            y += HEAD;
            let most = figures.iter().map(|f| rate_of(f)).fold(f64::MIN_POSITIVE, f64::max);
            for f in figures {
                let rate = rate_of(f);
                let length = (f64::from(WIDTH - NAMES - 260) * rate / most) as i32;
                let of_limit = match (&f.bound, &f.fault) {
                    (_, Some(_)) => ", FAULT".into(),
                    (Some(b), _) => format!(", {:.0} % of {}", 100.0 * b.fraction(f.seconds()), b.limit),
                    _ => String::new(),
                };
                let label = format!("{rate:.1} {unit}, {}{of_limit}", output::duration(f.seconds()));
                put(root, &text((20, y + 3), format!("{} · {}", f.name, f.variant), 12))?;
                let bar = [(NAMES, y + 2), (NAMES + length.max(1), y + ROW - 4)];
                put(root, &Rectangle::new(bar, BLUE_GREY.filled()))?;
                put(root, &text((NAMES + length + 8, y + 3), label, 12))?;
                y += ROW;
            }
        }
        Ok(())
    })
}

/// Rates over arithmetic intensity, both logarithmic, under the adapter's ceilings.
pub(super) fn roofline(report: &Report, file: &Path) -> Result<()> {
    const SIZE: (i32, i32) = (1000, 640);
    const LEFT: i32 = 70;
    const RIGHT: i32 = 800;
    const TOP: i32 = 40;
    const BOTTOM: i32 = 590;
    let points: Vec<(&Figure, f64, f64)> = report
        .figures
        .iter()
        .filter(|f| f.flops > 0 && f.bytes > 0)
        .map(|f| (f, f.flops as f64 / f.bytes as f64, f.gflops()))
        .collect();
    let ceilings = &report.ceilings;
    let peak = ceilings.multiply.values().copied().fold(f64::MIN_POSITIVE, f64::max) / 1e9;
    let decades = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        (low.log10().floor(), high.log10().ceil())
    };
    let (x0, x1) = decades(&mut points.iter().map(|p| p.1).chain([0.1, 100.0]));
    let (y0, y1) = decades(&mut points.iter().map(|p| p.2).chain([peak]));
    let x = |v: f64| LEFT + (f64::from(RIGHT - LEFT) * (v.log10() - x0) / (x1 - x0)) as i32;
    let y = |v: f64| BOTTOM - (f64::from(BOTTOM - TOP) * (v.log10() - y0) / (y1 - y0)) as i32;
    let mut families: Vec<&str> = points.iter().map(|p| p.0.family.as_str()).collect();
    families.dedup();
    let colour = |family: &str| {
        let at = families.iter().position(|other| *other == family).unwrap_or(0);
        COLOURS[at % COLOURS.len()]
    };
    area(file, SIZE, report, |root| {
        let grid = RGBColor(225, 225, 225);
        for decade in x0 as i32..=x1 as i32 {
            let at = x(10f64.powi(decade));
            put(root, &PathElement::new([(at, TOP), (at, BOTTOM)], grid))?;
            put(root, &text((at - 10, BOTTOM + 6), format!("{}", 10f64.powi(decade)), 12))?;
        }
        for decade in y0 as i32..=y1 as i32 {
            let at = y(10f64.powi(decade));
            put(root, &PathElement::new([(LEFT, at), (RIGHT, at)], grid))?;
            put(root, &text((LEFT - 50, at - 6), format!("{}", 10f64.powi(decade)), 12))?;
        }
        put(root, &text((LEFT + 260, BOTTOM + 26), "FLOP a byte that must be moved", 13))?;
        put(root, &text((10, TOP - 12), "GFLOP/s", 13))?;
        for (name, bandwidth) in [("memory", ceilings.memory), ("cache", ceilings.cache)] {
            // From the left or the bottom edge up to the peak.
            let gbytes = bandwidth / 1e9;
            let start = 10f64.powf(x0).max(10f64.powf(y0) / gbytes);
            let knee = (peak / gbytes).min(10f64.powf(x1));
            put(root, &PathElement::new([(x(start), y(start * gbytes)), (x(knee), y(knee * gbytes))], BLACK))?;
            let middle = (start * knee).sqrt();
            put(root, &text((x(middle) - 60, y(middle * gbytes) - 26), format!("{name} {gbytes:.1} GB/s"), 12))?;
        }
        for (arithmetic, rate) in &ceilings.multiply {
            let rate = rate / 1e9;
            let from = (rate * 1e9 / ceilings.cache).max(10f64.powf(x0));
            put(root, &PathElement::new([(x(from), y(rate)), (RIGHT, y(rate))], BLACK))?;
            let label = format!("{} {rate:.0} GFLOP/s", Limit::Multiply(*arithmetic));
            put(root, &text((RIGHT - 120, y(rate) - 16), label, 12))?;
        }
        for (figure, intensity, rate) in &points {
            let at = (x(*intensity), y(*rate));
            let style = colour(&figure.family);
            put(
                root,
                &Circle::new(at, 4, if figure.fault.is_some() { style.stroke_width(2) } else { style.filled() }),
            )?;
        }
        for (i, family) in families.iter().enumerate() {
            let at = (RIGHT + 30, TOP + 20 + 22 * i as i32);
            put(root, &Circle::new(at, 4, colour(family).filled()))?;
            put(root, &text((at.0 + 12, at.1 - 6), *family, 13))?;
        }
        put(root, &text((RIGHT + 22, TOP + 30 + 22 * families.len() as i32), "hollow: a measuring fault", 12))
    })
}
