//! The scripts: each is one atomic step of the store. What it takes and answers stands at its head.

use std::sync::LazyLock;

use redis::Script;

/// A script with what stands before every one. `allow-oom`: leases and deletions go on when memory is short. `no-writes`: may be
/// read when nothing can be written.
macro_rules! scripts {
    ($($name:ident = $flags:literal $file:literal;)+) => { $(
        pub static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!("#!lua flags=", $flags, "\n", include_str!("server.lua"), include_str!("guard.lua"), include_str!($file))));
    )+ };
}

/// A script of usage: for a ledger in the store, and for one on a server of its own.
pub struct UsageScript {
    pub in_store: LazyLock<Script>,
    pub apart: LazyLock<Script>,
}

macro_rules! usage_scripts {
    ($($name:ident = $flags:literal $file:literal;)+) => { $(
        pub static $name: UsageScript = UsageScript {
            in_store: LazyLock::new(|| {
                Script::new(concat!("#!lua flags=", $flags, "\n", include_str!("server.lua"), include_str!("guard.lua"), include_str!($file)))
            }),
            apart: LazyLock::new(|| {
                Script::new(concat!("#!lua flags=", $flags, "\n", include_str!("server.lua"), include_str!("apart.lua"), include_str!($file)))
            }),
        };
    )+ };
}

scripts! {
    DESCRIBE = "no-writes" "describe.lua";
    SET_UP = "allow-oom" "set_up.lua";
    PROPOSE = "allow-oom" "propose.lua";
    FREEZE = "allow-oom" "freeze.lua";
    OPEN_EPOCH = "allow-oom" "open_epoch.lua";
    QUIET = "allow-oom" "quiet.lua";
    WAIVE = "allow-oom" "waive.lua";
    DROP_REPLICA = "allow-oom" "drop_replica.lua";
    NOTES = "allow-oom" "notes.lua";
    RESTORE_BEGIN = "" "restore_begin.lua";
    RESTORE_ROWS = "" "restore_rows.lua";
    RESTORE_END = "" "restore_end.lua";
    READ = "no-writes" "read.lua";
    SCAN = "no-writes" "scan.lua";
    SWEEP = "no-writes" "sweep.lua";
    COMMIT = "allow-oom" "commit.lua";
    CHECK = "allow-oom" "check.lua";
    RENEW = "allow-oom" "renew.lua";
    LOAD = "allow-oom" "load.lua";
    CLUSTERS = "allow-oom" "clusters.lua";
    GATEWAYS = "allow-oom" "gateways.lua";
    RELEASE = "allow-oom" "release.lua";
    LEDGER_IS = "allow-oom" "ledger_is.lua";
    OUTBOX = "allow-oom" "outbox.lua";
}

usage_scripts! {
    MERGE = "" "merge.lua";
    HOURS = "no-writes" "hours.lua";
    LINES = "no-writes" "lines.lua";
    CHANGED = "no-writes" "changed.lua";
    TOUCH = "allow-oom" "touch.lua";
    FOLD_STEP = "" "fold_step.lua";
    FOLD_MOVE = "" "fold_move.lua";
    PICK = "no-writes" "pick.lua";
}
