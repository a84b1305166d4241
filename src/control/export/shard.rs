//! A part of the export: all series of some accounts. Pure.

use crate::principal::AccountId;

/// The part `index` of `of`, counted from zero. The parts have no account in common, and together they have all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    of: u32,
}

impl Shard {
    pub const MOST: u32 = 1024;

    /// `i/n` in decimal digits; or what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let number = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
        let (index, of) = text.split_once('/').ok_or(FORM)?;
        let (index, of) = (number(index).ok_or(FORM)?, number(of).ok_or(FORM)?);
        match (index, of) {
            (_, 0) => Err("A shard is one of at least one: the number behind the stroke is 0."),
            (_, of) if of > Self::MOST => Err("A shard is one of at most 1024."),
            (index, of) if index >= of => {
                Err("Shards are counted from 0: the first number must be less than the second.")
            }
            (index, of) => Ok(Self { index, of }),
        }
    }

    /// By a hash that is the same in every version and on every machine, so that a scraper keeps its series.
    pub fn takes(self, account_id: AccountId) -> bool {
        crc32fast::hash(&account_id.0) % self.of == self.index
    }
}

const FORM: &str = "A shard is written i/n, such as 0/4: two whole numbers with a stroke between them.";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::principal::ID_BYTES;

    proptest! {
        #[test]
        fn each_account_is_in_exactly_one_shard(bytes: [u8; ID_BYTES], of in 1..=Shard::MOST) {
            let account_id = AccountId(bytes);
            let taking = (0..of).filter(|index| Shard { index: *index, of }.takes(account_id)).count();
            prop_assert_eq!(taking, 1);
        }
    }

    #[test]
    fn shards_are_of_about_one_size() {
        let ids = (0..4000_u32).map(|n| {
            let mut id = [0; ID_BYTES];
            id[..4].copy_from_slice(&n.to_be_bytes());
            AccountId(id)
        });
        for index in 0..4 {
            let shard = Shard::parse(&format!("{index}/4")).unwrap();
            let taken = ids.clone().filter(|id| shard.takes(*id)).count();
            assert!((800..1200).contains(&taken), "{taken}");
        }
    }

    #[test]
    fn an_account_stays_in_its_shard() {
        assert!(Shard::parse("1/4").unwrap().takes(AccountId([7; ID_BYTES])));
    }

    #[test]
    fn what_is_no_shard_is_refused_with_the_reason() {
        for (bad, why) in [
            ("", "i/n"),
            ("1", "i/n"),
            ("a/b", "i/n"),
            ("-1/2", "i/n"),
            ("+1/2", "i/n"),
            ("1/2/3", "i/n"),
            ("/2", "i/n"),
            ("1/", "i/n"),
            ("99999999999/2", "i/n"),
            ("0/0", "at least one"),
            ("0/1025", "1024"),
            ("2/2", "from 0"),
        ] {
            let said = Shard::parse(bad).unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
        assert_eq!(Shard::parse("0/1"), Ok(Shard { index: 0, of: 1 }));
        assert_eq!(Shard::parse("1023/1024"), Ok(Shard { index: 1023, of: 1024 }));
    }
}
