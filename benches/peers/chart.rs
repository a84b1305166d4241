//! The figures as bars, one group for each case.

use std::fmt::Write as _;

use crate::report::{Held, Row};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
/// Left for the figure behind a bar.
const RIGHT: f64 = 80.0;
const BAR: f64 = 18.0;
const HEADING: f64 = 34.0;
const OURS: &str = "#1f6feb";
const THEIRS: &str = "#9aa4b2";

/// CPU per call, or the 99th percentile where a case is about latency. Who failed calls has no bar.
pub fn draw(cases: &[Held]) -> String {
    let (mut text, mut y) = (String::new(), 0.0);
    for case in cases {
        let is_cpu = case.figure == "CPU per call";
        let of = |row: &Row| if is_cpu { row.median(|run| run.cpu_us) } else { row.median(|run| run.p99_us) };
        let rows: Vec<_> = case.rows.iter().filter(|row| row.is_sound() && of(row) > 0.0).collect();
        let most = rows.iter().map(|row| of(row)).fold(f64::MIN_POSITIVE, f64::max);
        let heading = format!("{}: {}, µs ({})", case.name, case.figure, case.what);
        let _ = writeln!(text, r#"<text x="8" y="{}" font-weight="bold">{heading}</text>"#, y + HEADING - 10.0);
        y += HEADING;
        for row in rows {
            text += &bar(row, of(row), of(row) / most, y);
            y += BAR + 4.0;
        }
    }
    let height = y + 10.0;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
{text}</svg>
"#
    )
}

fn bar(row: &Row, value: f64, share: f64, y: f64) -> String {
    let (length, colour) = ((WIDTH - LEFT - RIGHT) * share, if row.is_ours { OURS } else { THEIRS });
    let (base, name, end) = (y + BAR - 5.0, LEFT - 8.0, LEFT + length + 6.0);
    format!(
        r#"<text x="{name}" y="{base}" text-anchor="end">{}</text>
<rect x="{LEFT}" y="{y}" width="{length:.1}" height="{BAR}" fill="{colour}"/>
<text x="{end:.1}" y="{base}">{value:.1}</text>
"#,
        row.who
    )
}
