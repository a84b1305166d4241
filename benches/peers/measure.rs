//! What a process and those it started have used, from /proc.

use std::fs;
use std::time::Duration;

/// The kernel counts in hundredths of a second (`sysconf(_SC_CLK_TCK)`), whatever its own clock is.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all threads, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub cpu: Duration,
    /// The part of it that the threads of this name used; by this the gateway's background is told from its calls.
    pub named: Duration,
}

/// Of a process with its children; `thread` is how the names of the threads of interest begin.
pub fn used(pid: u32, thread: &str) -> Used {
    let mut used = Used::default();
    for pid in family(pid) {
        used.cpu += ticks(&format!("/proc/{pid}/stat"));
        for task in numbers(&format!("/proc/{pid}/task")) {
            let task = format!("/proc/{pid}/task/{task}");
            if fs::read_to_string(format!("{task}/comm")).is_ok_and(|name| name.starts_with(thread)) {
                used.named += ticks(&format!("{task}/stat"));
            }
        }
    }
    used
}

/// Memory of a process with its children, in bytes.
pub fn resident(pid: u32) -> u64 {
    let kibibytes = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    family(pid).into_iter().filter_map(kibibytes).sum::<u64>() * 1024
}

/// The process and its children; proxies have no grandchildren.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    for task in numbers(&format!("/proc/{pid}/task")) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{task}/children")).unwrap_or_default();
        family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    family
}

fn numbers(folder: &str) -> Vec<u32> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The 14th and 15th field: user and system time.
fn ticks(stat: &str) -> Duration {
    let text = fs::read_to_string(stat).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    TICK * fields.filter_map(|field| field.parse::<u32>().ok()).sum()
}
