//! Hours that leave the ledger for the archive: whatever is asked is answered as before, and what comes late is counted.

use super::*;
use crate::control::billing::archivist::Archivist;
use crate::meter::record::{Closing, Counters, Flush, LineKey, Operation};
use crate::principal::{ClusterId, ID_BYTES, KeyId};
use crate::store::folds::{Fold, stands};
use crate::store::usage::FinalWindow;
use crate::store::{Ledger, LedgerReader, StoreError, UsageTotal};
use crate::time::Hour;

const GATEWAY: Incarnation = Incarnation([7; ID_BYTES]);
const REST: Duration = Duration::from_secs(3600);

/// An hour that is older than the retention.
fn old() -> Hour {
    Hour(clock::wall().hour().0 - 24 * 30)
}

fn line(account_id: AccountId, key: u8, ok: u64) -> (LineKey, Counters) {
    let (key_id, cluster_id) = (KeyId([key; ID_BYTES]), ClusterId([9; ID_BYTES]));
    let line = LineKey { account_id, key_id, cluster_id, operation: Operation::Query };
    (line, Counters { opened: ok, outcomes: [ok, 0, 0, 0, 0, 0], read_units: ok * 2, ..Counters::default() })
}

fn closed(incarnation: Incarnation, hour: Hour, lines: Vec<(LineKey, Counters)>, leaves: bool) -> Flush {
    let totals = lines.iter().fold(Counters::default(), |sum, (_, counters)| sum.plus(counters));
    let closing = Some(Closing { lines: lines.len() as u64, totals, leaves });
    Flush { incarnation, hour, sequence: 1, lines, watermark: hour.end(), closing }
}

/// An archivist at work on a control plane with two old hours that are final. The first may leave once it is archived.
struct Scene {
    world: World,
    archivist: Archivist,
    owner: Owner,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let owner = world.owner("one@example.com").await;
        for (hour, leaves) in [(old(), false), (old().next(), true)] {
            let lines = vec![line(owner.account_id, 1, 3), line(owner.account_id, 2, 4)];
            world.store.merge(closed(GATEWAY, hour, lines, leaves)).await.unwrap();
            let window = FinalWindow { hour, final_at: clock::wall() };
            crate::store::usage::UsageStore::make_final(&*world.store, window).await.unwrap();
        }
        Self { world, archivist: Archivist::default(), owner }
    }

    /// A round of the archivist so much later. True where nothing went wrong.
    async fn round(&mut self, later: Duration) -> bool {
        let (control, now) = (&self.world.control, clock::wall().plus(later));
        self.archivist.round(control, control.archive.as_ref().unwrap(), now).await.unwrap()
    }

    /// Archives both hours, and the first leaves.
    async fn fold(&mut self) {
        assert!(self.round(Duration::ZERO).await);
        assert_eq!(self.stands().await, None, "it has only just changed");
        assert!(self.round(2 * REST).await);
        assert_eq!(self.stands().await, Some(Fold::Archived));
    }

    async fn stands(&self) -> Option<Fold> {
        stands(&*self.world.store, old()).await.unwrap()
    }

    /// Whatever can be asked about the hour.
    async fn answers(&self) -> Vec<String> {
        let (from, to) = (old().to_string(), old().next().next().to_string());
        let targets = [
            format!("/v1/usage/records?from={from}&to={to}"),
            format!("/v1/usage/records?from={from}&by=key"),
            format!("/v1/usage/records?key={}&format=csv", KeyId([2; ID_BYTES])),
            format!("/v1/usage/records?final=true&format=cloudevents&account={}", self.owner.account_id),
            format!("/v1/usage/records?limit=1&to={to}"),
            format!("/v1/usage/reconciliation?window={from}"),
            format!("/v1/usage/reconciliation?window={}", old().next()),
            format!("/v1/usage/windows?from={from}&to={to}"),
            "/v1/usage/changes".to_owned(),
            "/metrics/usage".to_owned(),
        ];
        let mut answers = Vec::new();
        for target in targets {
            let answer = self.world.get(&self.world.billing, &target).await;
            assert_eq!(answer.status, StatusCode::OK, "{target}: {}", answer.text);
            // Numbers of the feed are another matter.
            let lines =
                answer.text.lines().map(|line| line.split_once("\"record\"").map_or(line, |(_, record)| record));
            answers.push(lines.collect::<Vec<_>>().join("\n"));
        }
        answers
    }

    fn totals(&self) -> Vec<UsageTotal> {
        self.world.store.totals().unwrap()
    }

    async fn entries(&self) -> u64 {
        self.world.control.archive.as_ref().unwrap().verify().await.unwrap().unwrap().entries
    }

    fn archive_folder(&self) -> std::path::PathBuf {
        self.world.ground.folder.path().join("archive/hours")
    }
}

#[tokio::test]
async fn whatever_is_asked_about_an_hour_that_has_left_is_answered_as_before() {
    let mut scene = Scene::new().await;
    let (before, totals) = (scene.answers().await, scene.totals());
    scene.fold().await;
    assert!(scene.world.store.lines(old(), old()).await.unwrap().is_empty());
    assert!(scene.world.store.marks(old(), old()).await.unwrap().is_empty());
    assert_eq!(stands(&*scene.world.store, old().next()).await.unwrap(), None, "the hour behind it is not final");
    for (before, after) in before.iter().zip(scene.answers().await) {
        assert_eq!(*before, after);
    }
    assert_eq!(scene.totals(), totals);
    // A correction of it makes a revision of what is there, and nothing comes back for that.
    let adjustment = json!({
        "account_id": scene.owner.account_id.to_string(), "cluster_id": ClusterId([9; ID_BYTES]).to_string(),
        "operation": "query", "window_start": old().to_string(), "field": "read_units", "delta": -14,
        "reason": "an outage", "idempotency_key": "one",
    });
    scene.world.post(&scene.world.operator, "/v1/usage/adjustments", adjustment).await.ok(201);
    assert!(scene.round(3 * REST).await);
    assert_eq!((scene.entries().await, scene.stands().await), (3, Some(Fold::Archived)));
}

#[tokio::test]
async fn late_usage_brings_its_hour_back_and_makes_a_revision_that_has_all_of_it() {
    let mut scene = Scene::new().await;
    scene.fold().await;
    let late = || closed(Incarnation([8; ID_BYTES]), old(), vec![line(scene.owner.account_id, 1, 5)], true);
    let refused = scene.world.store.merge(late()).await;
    assert!(matches!(refused, Err(StoreError::Archived(hour)) if hour == old()), "{refused:?}");
    let late = late();
    assert!(scene.round(3 * REST).await);
    assert_eq!(scene.stands().await, None);
    scene.world.store.merge(late).await.unwrap();
    assert!(scene.round(3 * REST).await);
    assert_eq!((scene.entries().await, scene.stands().await), (3, None));
    let records = scene.world.get(&scene.world.billing, &format!("/v1/usage/records?to={}", old().next())).await;
    assert_eq!(records.json()["calls"]["ok"], "12");
    let before = (scene.answers().await, scene.totals());
    assert!(scene.round(5 * REST).await);
    assert_eq!(scene.stands().await, Some(Fold::Archived));
    assert_eq!((scene.answers().await, scene.totals()), before);
    let told =
        scene.world.get(&scene.world.billing, &format!("/v1/usage/reconciliation?window={}", old())).await.ok(200);
    assert_eq!((told["verdict"].as_str(), told["ledger"].as_str()), (Some("exact"), Some("12")));
}

#[tokio::test]
async fn an_hour_whose_file_is_broken_is_refused_by_name_and_others_go_on() {
    let mut scene = Scene::new().await;
    scene.fold().await;
    let folder = scene.archive_folder().join(old().to_string().replace(':', "-"));
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"3\"", "\"4\"")).unwrap();
    for target in ["/v1/usage/records", "/v1/usage/reconciliation?window=", "/v1/usage/changes"] {
        let asked = if target.ends_with('=') { format!("{target}{}", old()) } else { target.to_owned() };
        scene.world.get(&scene.world.billing, &asked).await.problem(503, "archive_away");
    }
    let late = closed(Incarnation([8; ID_BYTES]), old(), vec![line(scene.owner.account_id, 1, 5)], true);
    scene.world.store.merge(late.clone()).await.unwrap_err();
    let other = closed(Incarnation([8; ID_BYTES]), old().next(), vec![line(scene.owner.account_id, 1, 5)], true);
    scene.world.store.merge(other).await.unwrap();
    assert!(!scene.round(3 * REST).await);
    assert_eq!(scene.stands().await, Some(Fold::Archived), "it did not come back in part");
    std::fs::write(&file, text).unwrap();
    assert_eq!(scene.entries().await, 3, "the other hour has another revision");
    assert!(scene.round(3 * REST).await);
    scene.world.store.merge(late).await.unwrap();
}

#[tokio::test]
async fn a_fold_that_was_cut_short_is_gone_on_with_and_one_that_had_not_begun_is_given_up() {
    use crate::store::folds::{Folds, Step, Way, digest};
    let mut scene = Scene::new().await;
    let before = (scene.answers().await, scene.totals());
    assert!(scene.round(Duration::ZERO).await);
    let (store, lines) = (Arc::clone(&scene.world.store), scene.world.store.lines(old(), old()).await.unwrap());
    assert!(store.step(old(), Step::Check).await.unwrap());
    assert_eq!((scene.answers().await, scene.totals()), before);
    assert!(scene.round(Duration::ZERO).await);
    assert_eq!(scene.stands().await, None);
    assert!(store.step(old(), Step::Check).await.unwrap());
    assert!(store.step(old(), Step::Leave { digest: digest(&lines) }).await.unwrap());
    assert!(store.move_lines(old(), Way::Out, lines[..1].to_vec()).await.unwrap());
    assert_eq!((scene.answers().await, scene.totals()), before, "half of it is in the base");
    drop(store);
    // The sums are made anew from what is there.
    let Scene { world, owner, .. } = scene;
    let world = world.restart(KeysConfig { active_max: 3, daily_max: 10, day_offset: 8 * 3600 });
    let mut scene = Scene { world, archivist: Archivist::default(), owner };
    assert_eq!(scene.totals(), before.1);
    assert!(scene.round(Duration::ZERO).await);
    assert_eq!(scene.stands().await, Some(Fold::Archived));
    assert_eq!((scene.answers().await, scene.totals()), before);
}

#[tokio::test]
async fn a_ledger_that_has_less_than_the_archive_is_given_back_what_it_lacks() {
    let mut scene = Scene::new().await;
    assert!(scene.round(Duration::ZERO).await);
    // Another ledger with the same archive: the first hour is not there, of the second there is less.
    let other = World::new();
    for part in ["hours", "manifest"] {
        std::fs::rename(
            scene.world.ground.folder.path().join("archive").join(part),
            other.ground.folder.path().join("archive").join(part),
        )
        .unwrap();
    }
    let lines = vec![line(scene.owner.account_id, 1, 2), line(scene.owner.account_id, 5, 6)];
    other.store.merge(closed(GATEWAY, old().next(), lines, true)).await.unwrap();
    let window = FinalWindow { hour: old().next(), final_at: clock::wall() };
    crate::store::usage::UsageStore::make_final(&*other.store, window).await.unwrap();
    let before = scene.world.store.lines(old(), old()).await.unwrap();
    let mut scene = Scene { world: other, archivist: Archivist::default(), owner: scene.owner };
    assert!(scene.round(Duration::ZERO).await);
    assert_eq!(scene.world.store.lines(old(), old()).await.unwrap(), before);
    let merged: Vec<u64> = scene
        .world
        .store
        .lines(old().next(), old().next())
        .await
        .unwrap()
        .iter()
        .map(|line| line.counters.opened)
        .collect();
    assert_eq!((merged, scene.entries().await), (vec![3, 4, 6], 3));
    assert!(scene.world.store.marks(old(), old()).await.unwrap()[0].mark.closing.is_some());
}

#[tokio::test]
async fn an_hour_that_left_with_less_than_the_archive_has_now_comes_back_for_the_rest() {
    use crate::archive::hour::Content;
    use crate::meter::record::LedgerLine;
    use crate::store::folds::Folds;
    let mut scene = Scene::new().await;
    scene.fold().await;
    let calls = async |scene: &Scene| {
        let records = scene.world.get(&scene.world.billing, &format!("/v1/usage/records?to={}", old().next())).await;
        records.json()["calls"]["ok"].as_str().unwrap().to_owned()
    };
    // The store is from a backup: since then the hour had come back for late usage, and had left again.
    let (control, archive) = (&scene.world.control, scene.world.control.archive.as_ref().unwrap());
    let folded = scene.world.store.folds(old(), old()).await.unwrap().remove(&old()).unwrap();
    let mut lines = control.archived(old(), &folded).await.unwrap().lines;
    let (key, counters) = line(scene.owner.account_id, 3, 5);
    lines.push(LedgerLine { hour: old(), incarnation: Incarnation([8; ID_BYTES]), key, counters });
    let content = Content::of(&lines, &[], &[]);
    assert!(archive.add(&mut archive.head().await.unwrap(), old(), &content, clock::wall()).await.unwrap());
    assert_eq!(calls(&scene).await, "7", "as it left");
    scene.archivist = Archivist::default();
    assert!(scene.round(3 * REST).await);
    assert_eq!((scene.stands().await, calls(&scene).await.as_str()), (None, "12"));
    assert_eq!(scene.world.store.lines(old(), old()).await.unwrap(), lines);
}
