//! A ledger that loses what it acknowledged: whatever it forgets and whenever, after a few flushes it has everything again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::meter::recover::Recovery;

const SECOND: u64 = 1000;

/// What happens, in order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Call(u16),
    /// So many milliseconds pass.
    Wait(u64),
    NextHour,
    Flush,
    /// The dead are looked for.
    Recover,
    /// The gateway is killed, and another one starts.
    Kill,
    /// The gateway stops as it should, and another one starts.
    Retire,
    Trouble(Trouble),
}

/// What is done to the ledger, and to its next answers.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// It forgets its last merges, and may be another server then, or lose its next answers.
    GoBack {
        merges: usize,
        is_another: bool,
        loses_answers: bool,
    },
    Away,
    AnswersLost,
    Over,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        4 => (0_usize..40, any::<bool>(), any::<bool>())
            .prop_map(|(merges, is_another, loses_answers)| Trouble::GoBack { merges, is_another, loses_answers }),
        2 => Just(Trouble::GoBack { merges: usize::MAX, is_another: false, loses_answers: true }),
        1 => Just(Trouble::Away),
        1 => Just(Trouble::AnswersLost),
        3 => Just(Trouble::Over),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u16..6).prop_map(Step::Call),
        4 => (1_u64..3000).prop_map(Step::Wait),
        1 => Just(Step::NextHour),
        6 => Just(Step::Flush),
        2 => Just(Step::Recover),
        1 => Just(Step::Kill),
        1 => Just(Step::Retire),
        4 => trouble().prop_map(Step::Trouble),
    ]
}

/// One gateway at a time over the same folders, on a clock of its own.
struct Stage {
    folder: TempDir,
    ledger: Arc<MemoryLedger>,
    runtime: tokio::runtime::Runtime,
    now: WallTime,
    started: u8,
    gateway: Option<Gateway>,
}

struct Gateway {
    flusher: Flusher,
    recovery: Recovery,
    meter: Arc<Meter>,
}

impl Stage {
    fn new() -> Self {
        let ledger = Arc::new(MemoryLedger::default());
        let mut stage =
            Self { folder: folder(), ledger, runtime: runtime(), now: HOUR.start(), started: 0, gateway: None };
        stage.start();
        stage
    }

    fn start(&mut self) {
        self.started += 1;
        let options = MeterOptions { now: self.now, ..options(self.folder.path(), self.started) };
        let meter = Meter::open_sized(options, SMALL).unwrap();
        let flusher = Flusher::new(&meter, Arc::clone(&self.ledger) as _);
        let recovery = Recovery::new(&meter);
        self.gateway = Some(Gateway { flusher, recovery, meter });
        // A gateway takes no call before that.
        self.trouble(Trouble::Over);
        let now = self.now;
        self.runtime.block_on(self.gateway.as_mut().unwrap().flusher.enrol(now)).unwrap();
    }

    fn trouble(&self, trouble: Trouble) {
        self.ledger.away.store(matches!(trouble, Trouble::Away), Ordering::Relaxed);
        let loses = matches!(trouble, Trouble::AnswersLost | Trouble::GoBack { loses_answers: true, .. });
        self.ledger.loses_answers.store(loses, Ordering::Relaxed);
        if let Trouble::GoBack { merges, is_another, .. } = trouble {
            self.ledger.go_back(merges);
            if is_another {
                self.ledger.life.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn play(&mut self, step: Step) {
        let now = self.now;
        let gateway = self.gateway.as_mut().unwrap();
        match step {
            Step::Call(number) => call(&gateway.meter, key(number), now),
            Step::Wait(millis) => self.now = WallTime(now.0 + millis),
            Step::NextHour => self.now = now.hour().end(),
            Step::Flush => drop(self.runtime.block_on(gateway.flusher.flush_once(now))),
            Step::Recover => drop(self.runtime.block_on(gateway.recovery.run_once(&*self.ledger, now)).unwrap()),
            Step::Kill => {
                self.gateway = None;
                self.start();
            }
            Step::Retire => {
                let Gateway { flusher, meter, .. } = self.gateway.take().unwrap();
                let _ = self.runtime.block_on(flusher.retire(now));
                drop(meter);
                self.start();
            }
            Step::Trouble(trouble) => self.trouble(trouble),
        }
    }
}

/// Plays the steps, with the troubles or without, and then goes on for a few seconds without any.
fn played(steps: &[Step], with_troubles: bool) -> Arc<MemoryLedger> {
    let mut stage = Stage::new();
    for step in steps {
        if with_troubles || !matches!(step, Step::Trouble(_)) {
            stage.play(*step);
        }
    }
    stage.trouble(Trouble::Over);
    // A loss is found within two seconds, and then the dead are looked after.
    for _ in 0..4 {
        for step in [Step::Wait(2 * SECOND), Step::Flush, Step::Recover] {
            stage.play(step);
        }
    }
    Arc::clone(&stage.ledger)
}

/// How hours with calls were closed, and who has left.
fn closings(ledger: &MemoryLedger) -> (BTreeMap<(Hour, Incarnation), Counters>, BTreeSet<Incarnation>) {
    let (mut closed, mut gone) = (BTreeMap::new(), BTreeSet::new());
    for ((hour, incarnation), mark) in ledger.marks() {
        let Some((_, closing)) = mark.closing else { continue };
        // Which of the hours without calls one was announced for depends on whether the ledger was there.
        if closing.lines > 0 {
            closed.insert((hour, incarnation), closing.totals);
        }
        if closing.leaves {
            gone.insert(incarnation);
        }
    }
    (closed, gone)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn whatever_the_ledger_forgets_it_has_everything_after_a_few_flushes(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let (calm, troubled) = (played(&steps, false), played(&steps, true));
        prop_assert_eq!(troubled.all(), calm.all());
        prop_assert_eq!(closings(&troubled), closings(&calm));
        troubled.assert_closings_fit();
    }
}

/// It has no file to write down in how often it spoke to the ledger.
#[test]
fn that_a_gateway_left_which_never_took_a_call_is_missed_where_it_gets_lost() {
    for merges in 1..8 {
        let trouble = Trouble::GoBack { merges, is_another: false, loses_answers: false };
        let steps = [Step::Flush, Step::NextHour, Step::Flush, Step::Kill, Step::Recover];
        let steps = [&steps[..], &[Step::Trouble(trouble), Step::Call(0)]].concat();
        assert_eq!(closings(&played(&steps, true)), closings(&played(&steps, false)), "{merges}");
    }
}

#[test]
fn an_idle_gateway_finds_out_that_the_ledger_has_lost_something() {
    for is_another in [false, true] {
        let mut stage = Stage::new();
        stage.play(Step::Call(1));
        stage.play(Step::Flush);
        let before = stage.ledger.all();
        stage.trouble(Trouble::GoBack { merges: 1, is_another, loses_answers: false });
        assert!(stage.ledger.all().is_empty());
        stage.play(Step::Wait(2 * SECOND));
        stage.play(Step::Flush);
        assert_eq!(stage.ledger.all(), before);
        let sent = stage.ledger.sent.lock().len();
        stage.play(Step::Flush);
        assert_eq!(stage.ledger.sent.lock().len(), sent, "once is enough");
    }
}

#[test]
fn a_retry_does_not_hide_what_was_lost() {
    let mut stage = Stage::new();
    stage.play(Step::Call(1));
    stage.play(Step::Flush);
    stage.trouble(Trouble::GoBack { merges: usize::MAX, is_another: false, loses_answers: false });
    stage.play(Step::Call(2));
    // It takes the batch, and the answer that says what it knew before is lost.
    stage.trouble(Trouble::AnswersLost);
    stage.play(Step::Flush);
    stage.trouble(Trouble::Over);
    stage.play(Step::Flush);
    assert_eq!(stage.ledger.sum(HOUR, Incarnation([1; 10])), good_calls(2, HOUR.start()));
}
