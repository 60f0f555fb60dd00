//! Plots as SVG.

use anyhow::anyhow;
use plotters::prelude::*;

/// A line through points.
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Its points from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A curve among single points.
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Name of the horizontal axis.
    pub x: String,
    /// Name of the vertical axis.
    pub y: String,
    /// A horizontal line with a name.
    pub level: Option<(f64, String)>,
    /// The curve.
    pub curve: Curve,
    /// Points with names.
    pub marks: Vec<((f64, f64), String)>,
}

/// Least and largest, with a margin.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.06).max(1e-3);
    low - margin..high + margin
}

impl Plot {
    /// The picture.
    pub fn to_svg(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg)
            .map_err(|error| anyhow!("the plot can't be drawn: {error}"))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        const FONT: &str = "sans-serif";
        let points = || {
            self.curve
                .points
                .iter()
                .chain(self.marks.iter().map(|(point, _)| point))
        };
        let level = self.level.iter().map(|(level, _)| *level);
        let x = range(points().map(|point| point.0));
        let y = range(points().map(|point| point.1).chain(level));
        let root = SVGBackend::with_string(svg, (960, 600)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&self.title, (FONT, 20))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d(x.clone(), y)?;
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .light_line_style(WHITE)
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 16))
            .draw()?;
        if let Some((level, name)) = &self.level {
            let ends = [(x.start, *level), (x.end, *level)];
            chart
                .draw_series(DashedLineSeries::new(ends, 6, 4, BLACK.mix(0.5).into()))?
                .label(name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.mix(0.5)));
        }
        chart
            .draw_series(LineSeries::new(
                self.curve.points.iter().copied(),
                BLUE.stroke_width(2),
            ))?
            .label(&self.curve.name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLUE.stroke_width(2)));
        chart.draw_series(
            self.curve
                .points
                .iter()
                .map(|&point| Circle::new(point, 4, BLUE.filled())),
        )?;
        for (index, (point, name)) in self.marks.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            chart
                .draw_series([TriangleMarker::new(*point, 6, color.filled())])?
                .label(name)
                .legend(move |(x, y)| TriangleMarker::new((x + 9, y), 6, color.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 14))
            .draw()?;
        root.present()?;
        Ok(())
    }
}
