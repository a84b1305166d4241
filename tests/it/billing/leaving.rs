//! An hour leaves the ledger for the archive, and usage of it comes back with a gateway that everybody had given up.

use super::*;

/// More than the retention, and less than a clock may jump.
const LONG: u64 = 200 * HOUR;

/// Where an hour stands, by the store.
fn stands(fleet: &Fleet, hour: &str) -> Option<String> {
    let at: jiff::Timestamp = hour.parse().unwrap();
    let number = at.as_second() / HOUR as i64;
    let known: Option<String> =
        redis::cmd("HGET").arg("{tg}:u:folds").arg(number).query(&mut fleet.redis.client()).unwrap();
    known.map(|text| text.split(' ').next().unwrap().to_owned())
}

/// Whatever can be asked about an hour.
fn answers(fleet: &Fleet, hour: &str) -> Vec<String> {
    let to: jiff::Timestamp = hour.parse::<jiff::Timestamp>().unwrap() + std::time::Duration::from_secs(HOUR);
    let span = format!("from={hour}&to={to}");
    let told = |target: String| get(fleet, &target).text().to_owned();
    let mut answers: Vec<_> = ["", "&by=key", "&format=csv", "&by=key&format=cloudevents"]
        .map(|form| told(format!("/v1/usage/records?{span}{form}")))
        .into();
    answers.push(told(format!("/v1/usage/reconciliation?window={hour}")));
    answers.push(told(format!("/v1/usage/windows?{span}")));
    answers.push(tell(fleet, &["reconcile", "--window", hour]).to_string());
    // From the beginning, and of each record the last that is told.
    let mut last = BTreeMap::new();
    let mut after = 0;
    loop {
        let changes = lines(fleet, &format!("/v1/usage/changes?after={after}"));
        for change in &changes {
            let record = &change["record"];
            if record["window_start"] == hour {
                last.insert(record["record_id"].to_string(), record.to_string());
            }
            after = after.max(change["seq"].as_u64().unwrap());
        }
        if changes.is_empty() {
            break;
        }
    }
    answers.extend(last.into_values());
    answers
}

/// The counters of `/metrics/usage`, all added up.
fn exported(fleet: &Fleet) -> f64 {
    let text = get(fleet, "/metrics/usage").text().to_owned();
    let values =
        text.lines().filter(|line| line.starts_with("tollgate_usage_")).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

#[test]
fn an_hour_that_left_for_the_archive_is_answered_as_before_and_takes_usage_that_comes_late() {
    away_from_the_end_of_an_hour();
    let mut fleet = Fleet::start(&Setting { clocks: true, linked: true, archive: true, ..Setting::default() });
    let (_, key) = fleet.office.create();
    fleet.await_everywhere(&key, 200, 200, PATIENCE);
    let told_before = by_hour_settled(&fleet, GATEWAYS as u64);
    let gone = fleet.gateways()[0];
    fleet.link(0).set(Fault::StallBoth);
    let counted_there = (0..20).filter(|_| fleet.status(gone, &key) == 200).count() as u64;
    let all = told_before + counted_there;
    fleet.kill(0);
    fleet.link(0).set(Fault::None);
    set_clocks(&fleet, HOUR);
    until("the hour waits for it alone", || {
        windows(&fleet).first().is_some_and(|window| window.1 == "draining" && window.2 == 1)
    });
    let told = tell(&fleet, &["windows"]);
    let hour = told[0]["window_start"].as_str().unwrap().to_owned();
    let body = serde_json::json!({"incarnation": told[0]["missing"][0], "reason": "the machine is gone"});
    until("it can be given up", || {
        raw::api(fleet.office.control, "POST", "/v1/usage/abandonments", OPERATOR_TOKEN, &body).status == 201
    });
    until("it is archived", || archived(&fleet).contains_key(&hour));
    let before = (answers(&fleet, &hour), exported(&fleet));
    assert_eq!(stands(&fleet, &hour), None);

    set_clocks(&fleet, LONG);
    until("it has left", || stands(&fleet, &hour).as_deref() == Some("archived"));
    let after = (answers(&fleet, &hour), exported(&fleet));
    for (before, after) in before.0.iter().zip(&after.0) {
        assert_eq!(before, after);
    }
    assert_eq!((before.0.len(), before.1), (after.0.len(), after.1));
    let had: u64 = by_hour(&fleet)[&hour].0;
    assert_eq!(archived(&fleet)[&hour].len(), 1);

    fleet.start_again(0);
    until("its usage is there", || by_hour(&fleet)[&hour].0 == all);
    assert!(had < all && stands(&fleet, &hour).is_none());
    until("another revision has it", || {
        let entries = archived(&fleet).remove(&hour).unwrap();
        number(&entries.last().unwrap()["totals"]["ok"]) == all
    });
    until("everybody has closed the hour", || tell(&fleet, &["reconcile", "--window", &hour])["verdict"] == "exact");
    let before = (answers(&fleet, &hour), exported(&fleet));
    set_clocks(&fleet, LONG + 2 * HOUR);
    until("it has left again", || stands(&fleet, &hour).as_deref() == Some("archived"));
    assert_eq!((answers(&fleet, &hour), exported(&fleet)), before);
    let archive = fleet.control().path("meter/archive");
    let verified = tell(&fleet, &["verify", "--archive", archive.to_str().unwrap()]);
    assert_eq!(verified["verdict"].as_str(), Some("whole"));
}
