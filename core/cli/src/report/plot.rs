//! Figures as SVG. Methods differ in colour, marker and line, so that they are told apart without colour.

use anyhow::{Result, anyhow};
use motrain_core::metrics::report::Fronts;
use motrain_core::shown::one_line;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 90, 181),
    RGBColor(220, 50, 32),
    RGBColor(0, 130, 80),
    RGBColor(120, 60, 150),
    RGBColor(200, 130, 0),
    RGBColor(90, 90, 90),
];

/// Pixels of a front, the legend's first place, and the height of its rows.
const SIZE: (u32, u32) = (820, 560);
const LEGEND: (i32, i32) = (80, 16);
const ROW: i32 = 20;

/// Characters of a name in a figure.
const NAME: usize = 60;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The fronts of two objectives with 95 % intervals, points labelled by the first objective's weight. With more than two
/// objectives the first two are drawn.
pub fn front(fronts: &Fronts) -> Result<String> {
    let mut svg = String::new();
    draw_front(fronts, &mut svg).map_err(|e| anyhow!("drawing the front: {e}"))?;
    Ok(svg)
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw_front(fronts: &Fronts, svg: &mut String) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let second = usize::from(fronts.objectives.len() > 1);
    let range = |k: usize| {
        let all = fronts.methods.iter().flat_map(|m| m.points.iter()).flat_map(|p| p.ci[k]);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let margin = ((high - low) * 0.06).max(0.01);
        low - margin..high + margin
    };
    let label =
        |k: usize| format!("{} (mean reward, 0–1 scale of the initial policy)", one_line(&fronts.objectives[k], NAME));
    let mut chart: Chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_top(legend(fronts).last().map_or(LEGEND.1, |l| l.1) + 18)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(range(0), range(second))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE.mix(0.0))
        .x_desc(label(0))
        .y_desc(label(second))
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .draw()?;
    let shift = (range(0).end - range(0).start) * 0.012;
    for (i, method) in fronts.methods.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let at = |p: &motrain_core::metrics::report::Point| (p.rewards[0], p.rewards[second]);
        for p in &method.points {
            let (x, y) = at(p);
            let thin = colour.mix(0.35);
            chart.draw_series([
                PathElement::new(vec![(p.ci[0][0], y), (p.ci[0][1], y)], thin),
                PathElement::new(vec![(x, p.ci[second][0]), (x, p.ci[second][1])], thin),
            ])?;
        }
        let line = method.points.iter().map(at);
        chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        for p in &method.points {
            let style = ("sans-serif", 11).into_font().color(&colour).pos(Pos::new(HPos::Left, VPos::Bottom));
            let weight = format!("{:.1}", p.weights.values()[0]);
            draw_marker(&root, i, chart.backend_coord(&at(p)), colour)?;
            chart.draw_series([Text::new(weight, (at(p).0 + shift, at(p).1), style)])?;
        }
    }
    draw_legend(fronts, &root)?;
    root.present()?;
    Ok(())
}

/// Where the methods' names stand above the axes: left edge and middle of each, in as many rows as they need.
fn legend(fronts: &Fronts) -> Vec<(i32, i32)> {
    let (mut x, mut y) = (LEGEND.0, LEGEND.1);
    let place = |method: &motrain_core::metrics::report::Method| {
        let width = 60 + 8 * one_line(&method.name, NAME).chars().count() as i32;
        if x > LEGEND.0 && x + width > SIZE.0 as i32 {
            (x, y) = (LEGEND.0, y + ROW);
        }
        x += width;
        (x - width, y)
    };
    fronts.methods.iter().map(place).collect()
}

fn draw_legend(fronts: &Fronts, root: &Canvas) -> Drawn {
    for (i, (method, (x, y))) in fronts.methods.iter().zip(legend(fronts)).enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        root.draw(&PathElement::new(vec![(x, y), (x + 26, y)], colour.stroke_width(2)))?;
        draw_marker(root, i, (x + 13, y), colour)?;
        let style = ("sans-serif", 14).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(one_line(&method.name, NAME), (x + 33, y), style))?;
    }
    Ok(())
}

/// A marker of its own shape for each method, at a pixel.
fn draw_marker(root: &Canvas, method: usize, (x, y): (i32, i32), colour: RGBColor) -> Drawn {
    match method % 6 {
        0 => root.draw(&Circle::new((x, y), 5, colour.filled()))?,
        1 => root.draw(&TriangleMarker::new((x, y), 6, colour.filled()))?,
        2 => root.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], colour.filled()))?,
        3 => root.draw(&Circle::new((x, y), 6, colour.stroke_width(2)))?,
        4 => root.draw(&Rectangle::new([(x - 5, y - 5), (x + 5, y + 5)], colour.stroke_width(2)))?,
        _ => root.draw(&Cross::new((x, y), 5, colour.stroke_width(2)))?,
    }
    Ok(())
}

/// A curve over steps, with a smoothed line on top.
pub fn curve(title: &str, points: &[(f64, f64)]) -> Result<String> {
    let mut svg = String::new();
    draw_curve(title, points, &mut svg).map_err(|e| anyhow!("drawing {title}: {e}"))?;
    Ok(svg)
}

fn draw_curve(title: &str, points: &[(f64, f64)], svg: &mut String) -> Drawn {
    let root = SVGBackend::with_string(svg, (400, 230)).into_drawing_area();
    root.fill(&WHITE)?;
    let ys = points.iter().map(|p| p.1);
    let (low, high) = ys.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let margin = ((high - low) * 0.05).max(1e-6);
    let last = points.last().map_or(1.0, |p| p.0).max(1.0);
    let mut chart: Chart = ChartBuilder::on(&root)
        .caption(one_line(title, NAME), ("sans-serif", 14))
        .margin(6)
        .x_label_area_size(28)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..last, low - margin..high + margin)?;
    chart.configure_mesh().x_labels(5).y_labels(5).light_line_style(WHITE.mix(0.0)).x_desc("step").draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), COLOURS[0].mix(0.3)))?;
    let window = (points.len() / 20).max(1);
    let smooth = (0..points.len()).map(|i| {
        let part = &points[i.saturating_sub(window)..(i + window + 1).min(points.len())];
        (points[i].0, part.iter().map(|p| p.1).sum::<f64>() / part.len() as f64)
    });
    chart.draw_series(LineSeries::new(smooth, COLOURS[0].stroke_width(2)))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table;
    use motrain_core::Weights;
    use motrain_core::metrics::report::{Scored, method};

    #[test]
    fn names_from_elsewhere_break_neither_figure_nor_terminal() {
        let name = "\u{1b}[31mred & <b>\u{0}";
        let at = |a: f64| Scored {
            weights: Weights::new(vec![a, 1.0 - a]).unwrap(),
            rewards: vec![vec![a, 0.4], vec![0.3, 1.0 - a]],
            watched: [(name.to_owned(), vec![0.1, 0.2])].into(),
        };
        let method = method(name, &[at(0.0), at(1.0)], &[0.0, 0.0], 0);
        let fronts = Fronts {
            objectives: vec![name.into(), "B".into()],
            reference_point: vec![0.0, 0.0],
            methods: vec![method],
            ceiling: None,
        };
        let raw = |text: &str| text.contains(|c: char| c.is_control() && c != '\n');
        let svg = front(&fronts).unwrap();
        assert!(!raw(&svg) && !raw(&table(&fronts)) && !raw(&curve(name, &[(0.0, 1.0), (1.0, 2.0)]).unwrap()));
        assert!(svg.contains("\\u{1b}[31mred &amp; &lt;b&gt;"), "{svg}");
    }
}
