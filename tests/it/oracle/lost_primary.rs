//! What goes wrong with a fleet on a primary, two replicas and three sentinels.

use super::plays::wait;
use crate::harness::fleet::Fleet;
use crate::harness::group::Group;

/// Nobody waits for replicas here. The primary is lost with deletes that were answered and that no replica has: they are in the
/// journal of the control plane only.
pub fn primary_is_lost_with_deletes_that_only_it_has(fleet: &mut Fleet<Group>, times: usize) {
    for _ in 0..times {
        wait(1.0);
        fleet.redis.cut_replication();
        wait(0.7);
        let lost = fleet.redis.kill_primary();
        fleet.redis.await_another_primary(lost);
        wait(4.0);
        fleet.redis.start_again(lost);
        fleet.redis.follow(lost);
    }
    wait(0.5);
}

/// Changes wait for both replicas, and without them nothing is written.
pub fn primary_is_killed(fleet: &mut Fleet<Group>, times: usize) {
    for _ in 0..times {
        wait(1.0);
        let lost = fleet.redis.kill_primary();
        fleet.redis.await_another_primary(lost);
        fleet.redis.start_again(lost);
        fleet.redis.follow(lost);
        wait(4.5);
    }
}

/// It stands still until another one is the primary, and then goes on as if nothing had been: it has clients, takes what has waited,
/// and answers, until it is told.
pub fn primary_is_stopped(fleet: &mut Fleet<Group>, times: usize) {
    for _ in 0..times {
        wait(1.0);
        let old = fleet.redis.stop_primary();
        fleet.redis.await_another_primary(old);
        fleet.redis.continue_server(old);
        wait(1.5);
        fleet.redis.follow(old);
        wait(4.5);
    }
}
