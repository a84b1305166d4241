//! Whether an archive is what it was: every entry follows the one before it, every file is what its entry says.

use std::collections::BTreeSet;

use object_store::path::Path as Name;

use super::hour::Content;
use super::manifest::{Chain, Entry};
use super::{Archive, ArchiveError};
use crate::time::Hour;

/// An archive in which nothing is amiss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    pub entries: u64,
    /// Hours, of which some may have several revisions.
    pub hours: u64,
    pub last: Option<Hour>,
}

/// The first entry with which something is amiss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub number: u64,
    pub why: String,
}

impl Archive {
    /// Reads everything. An entry that is cut off at the end cannot be seen from within; compare the number of entries with what
    /// was noted elsewhere.
    pub async fn verify(&self) -> Result<Result<Whole, Broken>, ArchiveError> {
        let (mut chain, mut hours, mut revisions) = (Chain::default(), BTreeSet::new(), BTreeSet::new());
        loop {
            let number = chain.next_number();
            let broken = |why: String| Ok(Err(Broken { number, why }));
            let Some(bytes) = self.entry_bytes(number).await? else { break };
            let entry = match chain.take(&bytes) {
                Ok(entry) => entry,
                Err(why) => return broken(why.to_string()),
            };
            if let Err(why) = self.check_file(&entry).await? {
                return broken(why);
            }
            let (hour, revision) = (entry.window_start, entry.revision);
            if !revisions.insert((hour, revision)) || (revision > 1 && !revisions.contains(&(hour, revision - 1))) {
                return broken(format!("revision {revision} of {hour} does not follow the one before it"));
            }
            hours.insert(hour);
        }
        let entries = chain.next_number() - 1;
        if let Some(name) = self.beyond(entries).await? {
            return Ok(Err(Broken { number: entries + 1, why: format!("it is gone, and there is {name} behind it") }));
        }
        Ok(Ok(Whole { entries, hours: hours.len() as u64, last: hours.last().copied() }))
    }

    /// Something in the manifest that the chain does not lead to.
    async fn beyond(&self, entries: u64) -> Result<Option<Name>, ArchiveError> {
        let found = self.files.list_with_delimiter(Some(&Name::from("manifest"))).await?.objects;
        let last = super::entry_name(entries);
        Ok(found.into_iter().map(|file| file.location).filter(|name| *name > last).max())
    }

    async fn check_file(&self, entry: &Entry) -> Result<Result<(), String>, ArchiveError> {
        let file = &entry.file;
        let Some(bytes) = self.bytes(&Name::from(file.as_str())).await? else {
            return Ok(Err(format!("{file} is gone")));
        };
        let content = match Content::read(bytes) {
            Ok(content) => content,
            Err(line) => return Ok(Err(format!("line {line} of {file} cannot be read"))),
        };
        if content.sha256 != entry.sha256 {
            return Ok(Err(format!("{file} is not what it was: its SHA-256 is another")));
        }
        Ok(if content.sums == entry.sums() { Ok(()) } else { Err(format!("{file} does not come to the totals")) })
    }
}
