//! Where and with what a run was made.

use std::fs;
use std::path::Path;

use crate::contest::Plan;
use crate::proxies::Who;

/// Of all that can be compared; `None` for what is not here.
pub fn versions(envoy: Option<&Path>) -> Vec<(Who, Option<String>)> {
    let all = [Who::Ours, Who::Haproxy, Who::NginxLua, Who::NginxStatic, Who::Envoy];
    all.map(|who| (who, who.version(envoy))).into()
}

/// Date, machine, versions and the plan, as lines of a report.
pub fn describe(versions: &[(Who, Option<String>)], plan: Plan, flush: Option<&str>) -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let processors = read("/proc/cpuinfo");
    let mut models = processors.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = models.next().map_or("unknown", |(_, model)| model);
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let seconds = plan.times.measured.as_secs_f64();
    let mut facts = vec![
        (
            "date",
            jiff::Timestamp::now().round(jiff::Unit::Second).map_or_else(|_| String::new(), |now| now.to_string()),
        ),
        ("machine", format!("{count} × {model}, Linux {}", read("/proc/sys/kernel/osrelease"))),
        ("load before the run", read("/proc/loadavg")),
        ("rounds", format!("{} of {seconds} s each, in turn; driver, service and proxy share the cores", plan.rounds)),
    ];
    facts.extend(flush.map(|flush| ("meter.flush", flush.to_owned())));
    let built = if cfg!(debug_assertions) { " (built with debug assertions: not a figure to quote)" } else { "" };
    for (who, version) in versions {
        let version = version.as_deref().unwrap_or("not installed");
        facts.push((who.name(), format!("{version}{}", if *who == Who::Ours { built } else { "" })));
    }
    facts.into_iter().map(|(what, value)| (what.to_owned(), value)).collect()
}
