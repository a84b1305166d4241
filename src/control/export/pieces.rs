//! A body that is written while it is sent, a piece at a time.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use http_body::Frame;

use super::Exposition;
use super::family::{FAMILIES, Family};
use super::{protobuf, text};
use crate::store::UsageTotal;

/// The export of some totals. It owns them, so the ledger goes on while they are written.
pub struct Pieces {
    totals: Vec<UsageTotal>,
    exposition: Exposition,
    /// The index in [`FAMILIES`].
    family: usize,
    /// The next of `totals` within the family.
    next: usize,
    ended: bool,
    /// Whether a piece was just written: whoever else has work on this thread comes first.
    is_others_turn: bool,
    /// The labels of the total at hand, kept for their memory.
    labels: Vec<u8>,
}

/// About how many bytes a piece has.
const PIECE: usize = 64 * 1024;
/// The samples of a total in one family are no longer, with the family's head.
const SAMPLES: usize = 2048;

impl Pieces {
    pub fn new(totals: Vec<UsageTotal>, exposition: Exposition) -> Self {
        Self { totals, exposition, family: 0, next: 0, ended: false, is_others_turn: false, labels: Vec::new() }
    }

    /// Writes the samples of one total in one family, with the family's head before its first ones.
    fn advance(&mut self, to: &mut Vec<u8>) {
        let Some(family) = FAMILIES.get(self.family) else {
            self.ended = true;
            if self.exposition == Exposition::OpenMetrics {
                to.extend_from_slice(text::OPENMETRICS_END);
            }
            return;
        };
        if self.next == 0 {
            self.write_head(to, family);
        }
        match self.totals.get(self.next) {
            Some(total) => {
                write_samples(to, &mut self.labels, self.exposition, family, total);
                self.next += 1;
            }
            None => (self.family, self.next) = (self.family + 1, 0),
        }
    }

    fn write_head(&self, to: &mut Vec<u8>, family: &Family) {
        match self.exposition {
            Exposition::Text => text::head(to, &[family.name, "_total"].concat(), family.help),
            Exposition::OpenMetrics => text::head(to, family.name, family.help),
            Exposition::Protobuf => protobuf::head(to, family, &self.totals),
        }
    }
}

fn write_samples(to: &mut Vec<u8>, labels: &mut Vec<u8>, form: Exposition, family: &Family, total: &UsageTotal) {
    labels.clear();
    match form {
        Exposition::Text | Exposition::OpenMetrics => {
            text::labels(labels, total);
            family.samples(&total.counters, |outcome, value| text::sample(to, family, labels, outcome, value));
        }
        Exposition::Protobuf => {
            protobuf::labels(labels, total);
            family.samples(&total.counters, |outcome, value| protobuf::sample(to, labels, outcome, value));
        }
    }
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let mut piece = Vec::with_capacity(PIECE + SAMPLES);
        while piece.len() < PIECE && !self.ended {
            self.advance(&mut piece);
        }
        (!piece.is_empty()).then_some(piece)
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    /// A body that is always ready would hold its thread for as long as the reader takes it in.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::take(&mut self.is_others_turn) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_others_turn = true;
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(Bytes::from(piece)))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use prost::Message;

    use super::*;
    use crate::meter::record::{Counters, Operation, Outcome};
    use crate::principal::{AccountId, ClusterId, ID_BYTES};

    #[derive(Clone, PartialEq, Message)]
    struct MetricFamily {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        help: String,
        #[prost(int32, optional, tag = "3")]
        r#type: Option<i32>,
        #[prost(message, repeated, tag = "4")]
        metric: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Metric {
        #[prost(message, repeated, tag = "1")]
        label: Vec<LabelPair>,
        #[prost(message, optional, tag = "3")]
        counter: Option<Counter>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct LabelPair {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Counter {
        #[prost(double, tag = "1")]
        value: f64,
    }

    fn totals(count: u32) -> Vec<UsageTotal> {
        let total = |n: u32| {
            let mut id = [0; ID_BYTES];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let outcomes = [u64::from(n), 1, 2, 3, 4, 5];
            UsageTotal {
                account_id: AccountId(id),
                cluster_id: ClusterId([1; ID_BYTES]),
                operation: Operation::ALL[n as usize % Operation::ALL.len()],
                counters: Counters { outcomes, read_units: 7, interrupted: 1 << 53, ..Counters::default() },
            }
        };
        (0..count).map(total).collect()
    }

    fn written(count: u32, exposition: Exposition) -> Vec<u8> {
        let pieces = Pieces::new(totals(count), exposition);
        pieces.inspect(|piece| assert!(piece.len() < PIECE + SAMPLES)).flatten().collect()
    }

    fn text(count: u32, exposition: Exposition) -> String {
        String::from_utf8(written(count, exposition)).unwrap()
    }

    fn families(mut bytes: &[u8]) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        while !bytes.is_empty() {
            families.push(MetricFamily::decode_length_delimited(&mut bytes).unwrap());
        }
        families
    }

    /// A family as lines of text.
    fn lines(family: &MetricFamily) -> impl Iterator<Item = String> {
        let label = |pair: &LabelPair| format!("{}=\"{}\"", pair.name, pair.value);
        family.metric.iter().map(move |metric| {
            let labels: Vec<_> = metric.label.iter().map(label).collect();
            format!("{}{{{}}} {}", family.name, labels.join(","), metric.counter.as_ref().unwrap().value)
        })
    }

    #[test]
    fn each_family_is_written_once_and_whole_however_many_pieces_it_takes() {
        let text = text(1000, Exposition::Text);
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 1000 * (6 + 6));
        assert_eq!(text.matches("# TYPE tollgate_usage_read_units_total counter\n").count(), 1);
        let last = totals(1000)[999];
        let sample = format!(
            "tollgate_usage_calls_total{{account_id=\"{}\",cluster_id=\"{}\",operation=\"{}\",outcome=\"ok\"}} 999\n",
            last.account_id,
            last.cluster_id,
            last.operation.name()
        );
        assert_eq!(text.matches(&sample).count(), 1);
        assert!(!text.contains("# EOF"));
    }

    #[test]
    fn openmetrics_names_families_without_total_and_ends_with_eof() {
        let text = text(1, Exposition::OpenMetrics);
        assert!(text.contains("# TYPE tollgate_usage_calls counter\n"));
        assert!(text.contains("tollgate_usage_calls_total{"));
        assert!(text.ends_with("\n# EOF\n"));
        assert!(written(0, Exposition::OpenMetrics).ends_with(b"# EOF\n"));
    }

    #[test]
    fn protobuf_says_what_the_text_says() {
        let text = text(1000, Exposition::Text);
        let families = families(&written(1000, Exposition::Protobuf));
        assert_eq!(families.len(), FAMILIES.len());
        for (family, known) in families.iter().zip(&FAMILIES) {
            assert_eq!((family.name.as_str(), family.help.as_str()), (&*[known.name, "_total"].concat(), known.help));
            assert_eq!(family.r#type, Some(0), "a counter, and said so");
        }
        let as_text: BTreeSet<_> = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        assert_eq!(families.iter().flat_map(lines).collect::<BTreeSet<_>>(), as_text);
    }

    #[test]
    fn protobuf_of_nothing_has_no_family_without_metrics() {
        assert_eq!(written(0, Exposition::Protobuf), b"");
    }

    #[test]
    fn every_operation_and_outcome_has_the_length_that_was_measured() {
        let count = u32::try_from(Operation::ALL.len()).unwrap();
        let families = families(&written(count, Exposition::Protobuf));
        assert_eq!(families[0].metric.len(), Operation::ALL.len() * Outcome::ALL.len());
    }

    #[tokio::test]
    async fn between_two_pieces_the_thread_is_somebody_elses() {
        use http_body_util::BodyExt;
        // One thread for both.
        let turns = std::rc::Rc::new(std::cell::Cell::new(0_usize));
        let own = std::rc::Rc::clone(&turns);
        let local = tokio::task::LocalSet::new();
        local.spawn_local(async move {
            loop {
                own.set(own.get() + 1);
                tokio::task::yield_now().await;
            }
        });
        let whole = BodyExt::collect(Pieces::new(totals(5000), Exposition::Text));
        let body = local.run_until(whole).await.unwrap();
        let pieces = body.to_bytes().len() / PIECE;
        assert!(pieces > 50 && turns.get() >= pieces, "{} turns in {pieces} pieces", turns.get());
    }

    #[test]
    fn ten_times_the_series_take_about_ten_times_as_long() {
        let took = |count, exposition| {
            let pieces = Pieces::new(totals(count), exposition);
            let began = Instant::now();
            let bytes: usize = pieces.map(|piece| piece.len()).sum();
            (began.elapsed(), bytes)
        };
        for exposition in [Exposition::Text, Exposition::OpenMetrics, Exposition::Protobuf] {
            // Anything quadratic would be a hundred times, whenever it is measured; a busy machine is not always busy.
            let is_linear = (0..5).any(|_| {
                // 12 series each.
                let ((one, small), (ten, large)) = (took(8_334, exposition), took(83_340, exposition));
                println!("{exposition:?}: 100 k series, {small} bytes, {one:?}; 1 M series, {large} bytes, {ten:?}");
                ten < one * 30
            });
            assert!(is_linear, "{exposition:?}");
        }
    }
}
