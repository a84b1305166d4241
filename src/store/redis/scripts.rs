//! The scripts: each is one atomic step of the store. What it takes and answers stands at its head.

use std::sync::LazyLock;

use redis::Script;

/// A script with what stands before every one. `allow-oom`: leases and deletions go on when memory is short. `no-writes`: may be
/// read when nothing can be written.
macro_rules! scripts {
    ($($name:ident = $flags:literal $file:literal;)+) => { $(
        pub static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!("#!lua flags=", $flags, "\n", include_str!("guard.lua"), include_str!($file))));
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
    MERGE = "" "merge.lua";
    HOURS = "no-writes" "hours.lua";
    LINES = "no-writes" "lines.lua";
    CHANGED = "no-writes" "changed.lua";
    FOLD_STEP = "" "fold_step.lua";
    FOLD_MOVE = "" "fold_move.lua";
    PICK = "no-writes" "pick.lua";
}
