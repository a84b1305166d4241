//! Charts as SVG. Layers differ by pattern as well as by colour, and behind each chart there is its table.
//!
//! Elements of SVG are always closed (`{}`): in HTML one that is left open would swallow all that follow.

use maud::{Markup, html};

use super::elements::{Clock, bytes, count, time};
use super::text::Lang;
use super::usage::Span;

/// One part of each bar: the class that gives it colour and pattern, its name, and a value for each bucket.
pub struct Layer<'a> {
    pub class: &'static str,
    pub name: &'a str,
    pub values: Vec<u64>,
}

const HEIGHT: u64 = 1000;
/// The width of a bucket; a bar leaves a part of it free.
const STEP: usize = 100;
const BAR: usize = 72;

/// What the values of a chart are.
#[derive(Clone, Copy)]
pub enum Measure {
    Count,
    Bytes,
}

impl Measure {
    fn shown(self) -> fn(u64) -> String {
        match self {
            Self::Count => count,
            Self::Bytes => bytes,
        }
    }

    /// Where the scale ends for this greatest value: at a round number, whose half is one too.
    fn top(self, most: u64) -> u64 {
        match self {
            Self::Count => nice(most),
            Self::Bytes => most.max(2).checked_next_power_of_two().unwrap_or(u64::MAX),
        }
    }
}

/// A chart with title, legend and table.
pub fn bars(lang: Lang, title: &str, span: Span, layers: &[Layer<'_>], measure: Measure) -> Markup {
    let (top, shown) = (measure.top(totals(layers).into_iter().max().unwrap_or_default()), measure.shown());
    html! {
        figure .chart {
            figcaption {
                span .title { (title) }
                ul .legend { @for layer in layers { li { span class={ "swatch " (layer.class) } aria-hidden="true" {} (layer.name) } } }
            }
            div .plot {
                div .scale aria-hidden="true" { span { (shown(top)) } span { (shown(top / 2)) } span { (shown(0)) } }
                (drawing(lang, title, span, layers, top, shown))
            }
            (axis(span))
            (table(lang, span, layers, shown))
        }
    }
}

fn drawing(lang: Lang, title: &str, span: Span, layers: &[Layer<'_>], top: u64, shown: fn(u64) -> String) -> Markup {
    let width = span.buckets * STEP;
    html! {
        svg viewBox={ "0 0 " (width) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ (title) ". " (lang.chart_label()) } {
            @for at in [0, HEIGHT / 2, HEIGHT] { line .grid x1="0" x2=(width) y1=(at) y2=(at) {} }
            @for (at, start) in span.starts().enumerate() {
                g class=(if at + 1 == span.buckets { "bucket provisional" } else { "bucket" }) {
                    title data-from=(span.labelled(start)) data-step=(span.step) data-values=(said(layers, at, shown)) {
                        (span.labelled(start)) ": " (said(layers, at, shown))
                    }
                    rect .area x=(at * STEP) y="0" width=(STEP) height=(HEIGHT) {}
                    @for (layer, y, height) in stacked(layers, at, top) {
                        rect class=(layer.class) x=(at * STEP + (STEP - BAR) / 2) y=(y) width=(BAR) height=(height) {}
                    }
                }
            }
        }
    }
}

/// The layers of one bar from the bottom up, with their places in the drawing. A value that is there can be seen.
fn stacked<'a>(layers: &'a [Layer<'a>], at: usize, top: u64) -> Vec<(&'a Layer<'a>, u64, u64)> {
    let mut floor = HEIGHT;
    let mut bars = Vec::with_capacity(layers.len());
    for layer in layers {
        let value = layer.values.get(at).copied().unwrap_or_default();
        let height = scaled(value, top).max(u64::from(value > 0) * 8).min(floor);
        floor -= height;
        if height > 0 {
            bars.push((layer, floor, height));
        }
    }
    bars
}

fn scaled(value: u64, top: u64) -> u64 {
    let height = u128::from(value) * u128::from(HEIGHT) / u128::from(top.max(1));
    u64::try_from(height).unwrap_or(HEIGHT).min(HEIGHT)
}

fn said(layers: &[Layer<'_>], at: usize, shown: fn(u64) -> String) -> String {
    let each = layers
        .iter()
        .map(|layer| format!("{} {}", shown(layer.values.get(at).copied().unwrap_or_default()), layer.name));
    each.collect::<Vec<_>>().join(" · ")
}

fn totals(layers: &[Layer<'_>]) -> Vec<u64> {
    let buckets = layers.iter().map(|layer| layer.values.len()).max().unwrap_or_default();
    let total = |at: usize| {
        layers.iter().filter_map(|layer| layer.values.get(at)).fold(0, |sum: u64, value| sum.saturating_add(*value))
    };
    (0..buckets).map(total).collect()
}

/// The next of 2, 4, 10, 20, 40, … , so that half of it is a whole number.
fn nice(most: u64) -> u64 {
    let mut step: u64 = 1;
    loop {
        for factor in [2, 4, 10] {
            if most <= step.saturating_mul(factor) {
                return step.saturating_mul(factor);
            }
        }
        step = step.saturating_mul(10);
    }
}

/// Five instants below the drawing, at the buckets they belong to.
fn axis(span: Span) -> Markup {
    let clock = if span.step == 1 { Clock::Hour } else { Clock::Date };
    let starts: Vec<i64> = span.starts().collect();
    let last = starts.len().saturating_sub(1);
    let shown = (0..5).filter_map(|part| starts.get(last * part / 4));
    html! { div .axis aria-hidden="true" { @for start in shown { (time(&span.labelled(*start), clock)) } } }
}

fn table(lang: Lang, span: Span, layers: &[Layer<'_>], shown: fn(u64) -> String) -> Markup {
    let clock = if span.step == 1 { Clock::Minute } else { Clock::Date };
    let last = span.buckets.saturating_sub(1);
    let mut rows: Vec<(usize, i64)> = span.starts().enumerate().collect();
    rows.reverse();
    html! {
        details .numbers {
            summary { (lang.as_table()) }
            div .scroll tabindex="0" { table {
                thead { tr { th scope="col" { (lang.beginning()) } @for layer in layers { th scope="col" .number { (layer.name) } } } }
                tbody { @for (at, start) in rows {
                    tr {
                        th scope="row" { (time(&span.labelled(start), clock)) @if at == last { " " span .badge.neutral { (lang.provisional()) } } }
                        @for layer in layers { td .number { (shown(layer.values.get(at).copied().unwrap_or_default())) } }
                    }
                } }
            } }
        }
    }
}

/// A line of small bars without axis; the number beside it says what it means.
pub fn spark(values: &[u64], label: &str) -> Markup {
    let most = values.iter().copied().max().unwrap_or_default();
    html! {
        svg .spark viewBox={ "0 0 " (values.len() * 5) " 24" } role="img" aria-label=(label) {
            @for (at, value) in values.iter().enumerate() {
                @let height = (scaled(*value, most) * 22).div_ceil(HEIGHT).max(1);
                rect class=(if *value > 0 { "some" } else { "none" }) x=(at * 5) y=(24 - height) width="4" height=(height) rx="1" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_never_leaves_the_drawing_and_a_single_call_can_be_seen() {
        let layer = |values: Vec<u64>| Layer { class: "ok", name: "ok", values };
        let layers = [layer(vec![1_000_000, u64::MAX]), layer(vec![1, u64::MAX])];
        for at in 0..2 {
            for (_, y, height) in stacked(&layers, at, nice(1_000_001)) {
                assert!(height >= 8 && y + height <= HEIGHT);
            }
        }
        assert!(stacked(&layers, 5, 10).is_empty());
    }

    #[test]
    fn the_scale_ends_at_a_round_number_that_can_be_halved() {
        let ends: Vec<_> = [0, 1, 3, 5, 11, 41, 99, 101, u64::MAX].into_iter().map(nice).collect();
        assert_eq!(ends, [2, 2, 4, 10, 20, 100, 100, 200, u64::MAX]);
    }
}
