//! `tollgate probe`: watches the promise from outside. It creates a key, calls every gateway, deletes the key, and calls again,
//! for as long as it runs. A call that is let through after the delete was answered 200 is a violation, and so is a live key
//! that is called not valid.
//!
//! Its calls ask for an authority that nobody owns. A good key gets "unknown cluster" there, so nothing reaches an upstream and
//! nothing is billed, while key, account and lease are checked as for any other call.

pub mod gateways;
pub mod report;

/// What a gateway made of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Said {
    Admitted,
    NotValid,
    /// "Cannot be verified now" and its like: no answer about the key.
    CannotKnow,
    /// An answer that the probe does not expect.
    Other,
    /// No answer.
    Lost,
}

impl Said {
    pub const ALL: [Self; 5] = [Self::Admitted, Self::NotValid, Self::CannotKnow, Self::Other, Self::Lost];

    /// By the code in the body of an answer (interfaces, section 3).
    pub fn of(code: Option<i64>) -> Self {
        match code {
            Some(-3007) => Self::Admitted,
            Some(-3001) => Self::NotValid,
            Some(-3012..=-3010 | -3017) => Self::CannotKnow,
            _ => Self::Other,
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::NotValid => "not_valid",
            Self::CannotKnow => "cannot_know",
            Self::Other => "other",
            Self::Lost => "lost",
        }
    }
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A call that began after the delete was final was let through.
    DeletedAdmitted,
    /// A key that was created, and not deleted yet, was called not valid.
    LiveNotValid,
}

impl Violation {
    pub const ALL: [Self; 2] = [Self::DeletedAdmitted, Self::LiveNotValid];

    pub const fn label(self) -> &'static str {
        match self {
            Self::DeletedAdmitted => "deleted_admitted",
            Self::LiveNotValid => "live_not_valid",
        }
    }
}

/// How a key stands when a call with it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its creation was answered, its deletion not asked for.
    Live,
    /// Its deletion was answered 200, or its bound has passed.
    Deleted,
}

/// What an answer is, given how the key stood.
pub fn judge(standing: Standing, said: Said) -> Option<Violation> {
    match (standing, said) {
        (Standing::Live, Said::NotValid) => Some(Violation::LiveNotValid),
        (Standing::Deleted, Said::Admitted) => Some(Violation::DeletedAdmitted),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_promised_is_a_violation() {
        for said in Said::ALL {
            let violated = [Standing::Live, Standing::Deleted].map(|standing| judge(standing, said));
            let wanted = match said {
                Said::Admitted => [None, Some(Violation::DeletedAdmitted)],
                Said::NotValid => [Some(Violation::LiveNotValid), None],
                Said::CannotKnow | Said::Other | Said::Lost => [None, None],
            };
            assert_eq!(violated, wanted, "{said:?}");
        }
    }

    #[test]
    fn codes_are_those_of_the_table_of_denials() {
        use crate::verdict::Denial;
        for denial in Denial::ALL {
            let wanted = match denial {
                Denial::NotValid => Said::NotValid,
                Denial::UnknownCluster => Said::Admitted,
                Denial::Limited { .. } | Denial::CannotVerify | Denial::CannotMeter | Denial::Overloaded => {
                    Said::CannotKnow
                }
                _ => Said::Other,
            };
            assert_eq!(Said::of(Some(denial.row().code.into())), wanted, "{denial:?}");
        }
    }
}
