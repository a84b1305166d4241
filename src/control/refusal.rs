//! What the store's refusals are to a caller.

use super::error::{Kind, Problem};
use super::totp::STEP_SECONDS;
use crate::clock;
use crate::store::accounts::{AccountError, Refusal};
use crate::time::WallTime;

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Refused(refusal) => refused(refusal, clock::wall()),
            AccountError::Store(error) => error.into(),
            AccountError::Pending => Kind::Pending.into(),
        }
    }
}

fn refused(refusal: Refusal, now: WallTime) -> Problem {
    match refusal {
        Refusal::NotFound => Kind::NotFound.into(),
        Refusal::IdentityUnverified => Kind::IdentityUnverified.into(),
        Refusal::NoCluster => Kind::NoCluster.into(),
        Refusal::AccountSuspended => Kind::AccountSuspended.into(),
        Refusal::KeyLimitReached { .. } => Kind::KeyLimit.into(),
        Refusal::DailyLimitReached { resets_at, .. } => {
            Problem::from(Kind::DailyLimit).resets_at(resets_at).retry_after(resets_at.since(now))
        }
        Refusal::StepUpRequired => Kind::StepUpRequired.into(),
        Refusal::GrantInvalid => Kind::GrantInvalid.into(),
        Refusal::CodeReplayed { next_step } => {
            let next = WallTime(next_step.saturating_mul(STEP_SECONDS * 1000));
            Problem::from(Kind::CodeReplayed).retry_after(next.since(now))
        }
        Refusal::EmailTaken => Kind::EmailTaken.into(),
        Refusal::HostTaken { .. } => Kind::HostTaken.into(),
        Refusal::HostMalformed { .. } => Problem::invalid("A host is a name without scheme, port and path."),
        Refusal::NoHost => Problem::invalid("A cluster needs at least one host."),
        Refusal::DigestTaken { index } => {
            Problem::from(Kind::KeyTaken).with_detail(format!("It is number {} of the list.", index.saturating_add(1)))
        }
        Refusal::MemberLimitReached { .. } => Kind::MemberLimit.into(),
        Refusal::RecoveryCodeInvalid => Kind::CodeInvalid.into(),
        Refusal::BelowZero => Problem::invalid("The record would have less than nothing."),
        Refusal::IdempotencyKeyTaken => Kind::IdempotencyKeyTaken.into(),
        // 80 random bits met themselves. Asking again makes new ones.
        Refusal::IdTaken => Kind::Overloaded.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replayed_code_says_when_the_next_one_comes() {
        let problem = refused(Refusal::CodeReplayed { next_step: 101 }, WallTime(3_010_500));
        let body = serde_json::to_value(problem.body("r")).unwrap();
        assert_eq!((body["code"].as_str(), body["retry_after_s"].as_u64()), (Some("code_replayed"), Some(20)));
    }

    #[test]
    fn the_daily_limit_says_when_it_resets() {
        let refusal = Refusal::DailyLimitReached { max: 10, resets_at: WallTime(1_774_000_000_000) };
        let body = serde_json::to_value(refused(refusal, WallTime(0)).body("r")).unwrap();
        assert_eq!(body["resets_at"], "2026-03-20T09:46:40Z");
        assert_eq!(body["status"], 429);
    }
}
