//! Rules of revocation that are left out on purpose, one at a time, so that the tests can show that they would notice (design,
//! section 5). In builds without debug assertions every rule is kept, whatever the environment says.

/// A rule, by what happens without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The lease counts from the reply of a renewal, not from before its sending.
    LeaseFromReply,
    /// The lease is looked at once, after the lookup.
    LeaseAfterLookup,
    /// A load that began before a deletion puts the key back.
    FillOverTombstone,
    /// A log that does not reach back is taken for one with nothing new.
    GapIgnored,
    /// A delete is answered without waiting for any gateway.
    NoWait,
}

impl Mutant {
    pub const ALL: [Self; 5] =
        [Self::LeaseFromReply, Self::LeaseAfterLookup, Self::FillOverTombstone, Self::GapIgnored, Self::NoWait];

    /// As `TOLLGATE_MUTANT` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeaseFromReply => "lease_from_reply",
            Self::LeaseAfterLookup => "lease_after_lookup",
            Self::FillOverTombstone => "fill_over_tombstone",
            Self::GapIgnored => "gap_ignored",
            Self::NoWait => "no_wait",
        }
    }

    /// Whether this process leaves the rule out.
    #[cfg(debug_assertions)]
    pub fn is_on(self) -> bool {
        use std::sync::OnceLock;
        static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| {
            let name = std::env::var("TOLLGATE_MUTANT").ok()?;
            let chosen = Self::ALL.into_iter().find(|mutant| mutant.name() == name);
            tracing::error!(%name, known = chosen.is_some(), "a rule of revocation is left out: this process is for tests only");
            chosen
        });
        *chosen == Some(self)
    }

    #[cfg(not(debug_assertions))]
    pub const fn is_on(self) -> bool {
        false
    }
}
