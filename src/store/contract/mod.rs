//! What every store must keep, whatever it is made of. A store runs all of it with [`contract_tests`].

mod accounts;
mod feed;
mod folds;
mod keys;
mod ledger;
mod model;
mod scene;
mod usage;
mod users;

pub use self::accounts::*;
pub use self::feed::*;
pub use self::folds::*;
pub use self::keys::*;
pub use self::ledger::*;
pub use self::model::*;
pub use self::scene::*;
pub use self::usage::*;
pub use self::users::*;

/// Makes a test of each part of the contract. `$open` gives a fresh, empty `Arc<dyn Store>` with a lease of
/// [`LEASE`](self::feed::LEASE), and something to keep alive beside it.
macro_rules! contract_tests {
    ($open:path: $($part:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $part() {
            let (_kept, store) = $open();
            let part = crate::store::contract::$part(store);
            tokio::time::timeout(std::time::Duration::from_secs(60), part).await.expect("the test ends in time");
        })+
    };
    ($open:path) => {
        crate::store::contract::contract_tests!($open:
            one_hundred_concurrent_creates_leave_exactly_three,
            the_eleventh_creation_of_a_day_is_refused_until_the_next_one_begins_at_the_offset,
            nothing_is_created_before_the_account_may,
            a_disabled_key_holds_its_slot_and_a_deleted_one_does_not,
            limits_of_the_account_come_before_the_configured_ones,
            an_import_is_all_or_nothing_and_counts_toward_no_limit,
            a_deleted_key_never_comes_back,
            a_repeated_delete_gives_the_same_facts_and_needs_no_grant,
            one_hundred_views_with_one_grant_show_the_key_once,
            one_hundred_uses_of_one_step_give_one_grant,
            a_grant_is_bound_to_session_action_and_key_and_ends,
            a_delete_uses_its_grant_up,
            keys_are_listed_in_pages_oldest_first,
            the_log_gives_the_same_state_in_any_order_of_replay,
            the_log_is_read_in_pages,
            another_epoch_starts_again_and_acknowledges_nothing,
            a_load_says_what_the_key_is_now,
            a_change_is_pushed_after_it_can_be_read,
            a_change_is_confirmed_by_every_gateway_that_was_there,
            a_silent_gateway_is_outwaited_and_a_released_one_is_not_awaited,
            merging_twice_late_or_out_of_order_changes_nothing,
            a_batch_behind_a_lost_one_does_not_count,
            marks_and_closings_come_out_the_same_in_any_order,
            the_change_feed_tells_each_record_with_its_last_change,
            a_gateway_is_given_up_once,
            lines_of_accounts_are_those_of_the_account_and_hour,
            an_adjustment_is_made_once_and_never_changed,
            totals_are_the_sum_of_the_lines,
            lines_come_in_the_order_of_hour_line_and_incarnation,
            an_hour_leaves_with_its_lines_and_marks_and_the_sums_stay,
            an_hour_comes_back_as_it_was_and_takes_late_usage,
            a_merge_into_an_hour_that_has_left_is_refused_and_it_is_wanted,
            the_change_feed_loses_the_lines_of_an_hour_that_left_and_nobody_misses_it,
            several_control_planes_let_the_same_hour_leave_and_nothing_is_counted_twice,
            hosts_belong_to_one_cluster_in_any_spelling,
            an_email_address_belongs_to_one_user_in_any_spelling,
            accounts_are_listed_in_pages,
            a_session_ends_when_it_expires_or_is_closed,
            a_rotated_session_keeps_its_grants,
            a_member_is_of_one_account_and_goes_with_their_sessions,
            a_password_change_ends_the_other_sessions_and_needs_a_grant_of_the_root,
            a_new_authenticator_is_in_force_once_confirmed,
            one_hundred_uses_of_one_recovery_code_give_one_grant,
            a_reset_ends_every_session_of_the_account,
            a_key_expires_once_and_comes_back_with_a_new_end,
            every_change_is_in_the_audit_log_and_the_chain_holds,
        );
    };
}
pub(crate) use contract_tests;
