//! Usage: what will be billed, as charts and tables, per hour or day, key and cluster.

use maud::{Markup, html};

use super::keys::named;
use crate::clock;
use crate::console::ask::Refused;
use crate::console::chart::{Layer, Measure, bars};
use crate::console::elements::{bytes, count, escaped};
use crate::console::facts::{Cluster, Items, Key, KeyList, Session};
use crate::console::shell::{self, Place, Whose};
use crate::console::text::Lang;
use crate::console::usage::{Record, Span, Sum, by, hour_of, instant};
use crate::console::visit::Visit;

/// A stretch of time that can be chosen: its name in the query, its buckets, the hours of a bucket, and what it is called.
type Range = (&'static str, usize, i64, fn(Lang) -> &'static str);

const RANGES: [Range; 5] = [
    ("24h", 24, 1, Lang::range_24h),
    ("3d", 72, 1, Lang::range_3d),
    ("7d", 7, 24, Lang::range_7d),
    ("30d", 30, 24, Lang::range_30d),
    ("90d", 90, 24, Lang::range_90d),
];

/// What the names of ids are found in.
struct Names {
    keys: Vec<Key>,
    clusters: Vec<Cluster>,
}

pub async fn page(visit: Visit) -> Result<Markup, Refused> {
    let (api, lang) = (&visit.api, visit.lang);
    let session: Session = api.get(&visit, "/v1/session").await?;
    let list: KeyList = api.get(&visit, "/v1/keys?deleted=true").await?;
    let clusters: Items<Cluster> = api.get(&visit, &format!("/v1/accounts/{}/clusters", session.account_id)).await?;
    let (_, buckets, step, _) =
        RANGES.into_iter().find(|(name, ..)| visit.asked("range") == Some(name)).unwrap_or(RANGES[0]);
    // A day ends when the limits of the day end: both are the day of the bill.
    let day_starts = hour_of(&list.resets_at).unwrap_or_default().rem_euclid(24);
    let span = Span::until(i64::from(clock::wall().hour().0), buckets, step, day_starts);
    let selected = selection(&visit, span);
    let records: Vec<Record> = api.lines(&visit, &format!("/v1/usage/records?{selected}")).await?;
    let names = Names { keys: list.keys, clusters: clusters.items };
    let csv = format!("/v1/usage/records?format=csv&{selected}");
    let content = html! {
        div .head {
            div { h1 { (lang.nav_usage()) } p .hint { (lang.usage_text()) } }
            div .action { a .button href=(csv) download="usage.csv" { (lang.download_csv()) } }
        }
        (filter(&visit, &names))
        (figures(lang, &records))
        (charts(lang, span, &records))
        (breakdowns(lang, &records, &names))
        @if step > 1 { p .hint { (lang.days_end()) " " (session.zone()) (lang.full_stop()) } }
        p .hint { (lang.provisional_text()) }
    };
    Ok(shell::page(&visit, &Whose::User(&session), Place::Usage, lang.nav_usage(), &content))
}

/// What is shown, as a query of the API.
fn selection(visit: &Visit, span: Span) -> String {
    let mut query = format!("by=key&limit=100000&from={}", escaped(&instant(span.from)));
    for name in ["key", "cluster", "operation"] {
        if let Some(value) = visit.asked(name) {
            query.push_str(&format!("&{name}={}", escaped(value)));
        }
    }
    query
}

fn filter(visit: &Visit, names: &Names) -> Markup {
    let lang = visit.lang;
    let range = visit.asked("range").unwrap_or(RANGES[0].0);
    let is = |name: &str, value: &str| visit.asked(name) == Some(value);
    html! {
        form .filter method="get" data-filter {
            div { label for="range" { (lang.range()) } select #range name="range" {
                @for (name, _, _, says) in RANGES { option value=(name) selected[name == range] { (says(lang)) } }
            } }
            div { label for="key" { (lang.key()) } select #key name="key" {
                option value="" { (lang.all_keys()) }
                @for key in &names.keys { option value=(key.id) selected[is("key", &key.id)] { (named(lang, key)) " · " (key.masked) } }
            } }
            div { label for="cluster" { (lang.cluster()) } select #cluster name="cluster" {
                option value="" { (lang.all_clusters()) }
                @for cluster in &names.clusters { option value=(cluster.cluster_id) selected[is("cluster", &cluster.cluster_id)] { (cluster_name(cluster)) } }
            } }
            button type="submit" { (lang.show()) }
        }
    }
}

fn figures(lang: Lang, records: &[Record]) -> Markup {
    let mut total = Sum::default();
    records.iter().for_each(|record| total += record.sum());
    let figure =
        |name: &str, value: String, note: String| html! { div { dt { (name) } dd { (value) } dd .hint { (note) } } };
    html! {
        dl .figures {
            (figure(lang.calls(), count(total.calls()), format!("{} {}", count(total.ok), lang.ok())))
            (figure(lang.read_units(), count(total.read_units), String::new()))
            (figure(lang.write_units(), count(total.write_units), String::new()))
            (figure(lang.traffic(), bytes(total.request_bytes.saturating_add(total.response_bytes)),
                format!("{} {} · {} {}", bytes(total.request_bytes), lang.bytes_in(), bytes(total.response_bytes), lang.bytes_out())))
        }
    }
}

fn charts(lang: Lang, span: Span, records: &[Record]) -> Markup {
    let sums = span.sums(records);
    let layer = |class, name, value: fn(&Sum) -> u64| Layer { class, name, values: sums.iter().map(value).collect() };
    let outcomes = [
        layer("ok", lang.ok(), |sum| sum.ok),
        layer("refused", lang.refused(), |sum| sum.refused),
        layer("failed", lang.failed(), |sum| sum.failed),
    ];
    let units = [
        layer("read", lang.read_units(), |sum| sum.read_units),
        layer("write", lang.write_units(), |sum| sum.write_units),
    ];
    let traffic = [
        layer("read", lang.bytes_out(), |sum| sum.response_bytes),
        layer("write", lang.bytes_in(), |sum| sum.request_bytes),
    ];
    html! {
        (patterns())
        div .card { (bars(lang, lang.calls_by_outcome(), span, &outcomes, Measure::Count)) }
        div .card { (bars(lang, lang.calls_by_operation(), span, &operations(lang, span, records), Measure::Count)) }
        div .columns {
            div .card { (bars(lang, lang.units(), span, &units, Measure::Count)) }
            div .card { (bars(lang, lang.traffic(), span, &traffic, Measure::Bytes)) }
        }
    }
}

/// The four busiest operations, and the rest as one.
fn operations<'a>(lang: Lang, span: Span, records: &'a [Record]) -> Vec<Layer<'a>> {
    const CLASSES: [&str; 4] = ["first", "second", "third", "fourth"];
    let busiest: Vec<&str> =
        by(records, |record| record.operation.as_str()).into_iter().map(|(name, _)| name).take(4).collect();
    let calls = |of: &dyn Fn(&str) -> bool| {
        let own = records.iter().filter(|record| of(&record.operation));
        span.sums(own).iter().map(Sum::calls).collect::<Vec<_>>()
    };
    let mut layers: Vec<Layer<'_>> = CLASSES
        .into_iter()
        .zip(&busiest)
        .map(|(class, name)| Layer { class, name, values: calls(&|other| other == *name) })
        .collect();
    let rest = calls(&|other| !busiest.contains(&other));
    if rest.iter().any(|calls| *calls > 0) || layers.is_empty() {
        layers.push(Layer { class: "rest", name: lang.other_operations(), values: rest });
    }
    layers
}

/// The patterns that tell layers apart without colour.
fn patterns() -> Markup {
    html! {
        svg .patterns width="0" height="0" aria-hidden="true" focusable="false" { defs {
            @for (id, path) in [("hatch", "M-2 10L10 -2M-2 22L22 -2M10 22L22 10"), ("cross", "M0 0L20 20M20 0L0 20"), ("lines", "M0 5H20M0 15H20")] {
                @for tone in ["refused", "failed", "write", "second", "third", "fourth"] {
                    pattern id={ (id) "-" (tone) } width="64" height="88" viewBox="0 0 20 20" preserveAspectRatio="none" patternUnits="userSpaceOnUse" {
                        rect class={ "ground " (tone) } width="20" height="20" {} path class={ "ink " (tone) } d=(path) stroke-width="4" fill="none" {}
                    }
                }
            }
        } }
    }
}

fn breakdowns(lang: Lang, records: &[Record], names: &Names) -> Markup {
    let key = |id: &str| {
        names
            .keys
            .iter()
            .find(|key| key.id == id)
            .map_or_else(|| id.to_owned(), |key| format!("{} · {}", named(lang, key), key.masked))
    };
    let cluster =
        |id: &str| names.clusters.iter().find(|cluster| cluster.cluster_id == id).map_or(id, cluster_name).to_owned();
    html! {
        (breakdown(lang, (lang.by_operation(), lang.operation()), &by(records, |record| record.operation.as_str()), &str::to_owned))
        (breakdown(lang, (lang.by_key(), lang.key()), &by(records, |record| record.key_id.as_str()), &key))
        (breakdown(lang, (lang.by_cluster(), lang.cluster()), &by(records, |record| record.cluster_id.as_str()), &cluster))
    }
}

fn breakdown(lang: Lang, (title, head): (&str, &str), sums: &[(&str, Sum)], name: &dyn Fn(&str) -> String) -> Markup {
    html! {
        section .card {
            h2 { (title) }
            @if sums.is_empty() { p .hint { (lang.no_calls()) } } @else {
                div .scroll tabindex="0" { table .plain {
                    thead { tr {
                        th scope="col" { (head) }
                        @for name in [lang.calls(), lang.ok(), lang.refused(), lang.failed(), lang.read_units(), lang.write_units(), lang.bytes_in(), lang.bytes_out()] {
                            th scope="col" .number { (name) }
                        }
                    } }
                    tbody { @for (id, sum) in sums { tr {
                        th scope="row" { code { (name(id)) } }
                        @for value in [sum.calls(), sum.ok, sum.refused, sum.failed, sum.read_units, sum.write_units] { td .number { (count(value)) } }
                        @for value in [sum.request_bytes, sum.response_bytes] { td .number { (bytes(value)) } }
                    } } }
                } }
            }
        }
    }
}

fn cluster_name(cluster: &Cluster) -> &str {
    cluster.name.as_deref().or(cluster.hosts.first().map(String::as_str)).unwrap_or(&cluster.cluster_id)
}
