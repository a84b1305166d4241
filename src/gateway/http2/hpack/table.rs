//! The static table of HPACK (RFC 7541, appendix A) and the dynamic one (2.3.2 and 4).

use std::collections::VecDeque;

/// A name and a value.
pub(super) type Field<'a> = (&'a [u8], &'a [u8]);

/// What an entry counts for beyond its name and its value (RFC 7541, 4.1).
const OVERHEAD: usize = 32;

/// The fields of the static table; the first has index 1.
pub(super) static STATIC: [Field<'static>; 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// A field of the dynamic table: its name and, after it, its value in one allocation.
pub(super) struct Entry {
    text: Box<[u8]>,
    name_length: usize,
}

impl Entry {
    /// Copies a field. It is made before others are evicted for it, as its name may be theirs (RFC 7541, 4.4).
    pub(super) fn new(name: &[u8], value: &[u8]) -> Self {
        let mut text = Vec::with_capacity(name.len().saturating_add(value.len()));
        text.extend_from_slice(name);
        text.extend_from_slice(value);
        Self { text: text.into_boxed_slice(), name_length: name.len() }
    }

    fn size(&self) -> usize {
        self.text.len().saturating_add(OVERHEAD)
    }

    fn field(&self) -> Option<Field<'_>> {
        self.text.split_at_checked(self.name_length)
    }
}

/// Both tables, as one space of indices (RFC 7541, 2.3.3).
pub(super) struct Table {
    /// The newest first. There are never more than `limit / 32`.
    entries: VecDeque<Entry>,
    /// The sum of the entries' sizes.
    size: usize,
    /// What `size` may not exceed.
    limit: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, limit }
    }

    /// The field with this index, which begins at 1.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Field<'_>> {
        let nth = index.checked_sub(1)?;
        match nth.checked_sub(STATIC.len()) {
            None => STATIC.get(nth).copied(),
            Some(nth) => self.entries.get(nth)?.field(),
        }
    }

    /// Adds an entry in front of the others and evicts the oldest until all fit. One that is larger than the table
    /// leaves it empty, which is no error (RFC 7541, 4.4).
    pub(super) fn insert(&mut self, entry: Entry) {
        let Some(room) = self.limit.checked_sub(entry.size()) else {
            self.evict(0);
            return;
        };
        self.evict(room);
        self.size += entry.size();
        self.entries.push_front(entry);
    }

    /// Changes the limit and evicts what it leaves no room for (RFC 7541, 4.3).
    pub(super) fn resize(&mut self, limit: usize) {
        self.limit = limit;
        self.evict(limit);
    }

    fn evict(&mut self, most: usize) {
        while self.size > most
            && let Some(entry) = self.entries.pop_back()
        {
            self.size = self.size.saturating_sub(entry.size());
        }
    }

    /// The size and the entries of the dynamic table, for tests.
    #[cfg(test)]
    pub(super) fn dynamic(&self) -> (usize, Vec<Field<'_>>) {
        (self.size, self.entries.iter().filter_map(Entry::field).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(table: &Table) -> Vec<&[u8]> {
        table.dynamic().1.iter().map(|field| field.0).collect()
    }

    #[test]
    fn indices_begin_at_one_and_end_with_the_oldest_entry() {
        let mut table = Table::new(4096);
        assert_eq!(table.get(0), None);
        assert_eq!(table.get(1), Some((&b":authority"[..], &b""[..])));
        assert_eq!(table.get(61), Some((&b"www-authenticate"[..], &b""[..])));
        assert_eq!(table.get(62), None);
        table.insert(Entry::new(b"old", b"1"));
        table.insert(Entry::new(b"new", b"2"));
        assert_eq!(table.get(62), Some((&b"new"[..], &b"2"[..])));
        assert_eq!(table.get(63), Some((&b"old"[..], &b"1"[..])));
        assert_eq!(table.get(64), None);
        assert_eq!(table.get(usize::MAX), None);
    }

    #[test]
    fn the_oldest_go_first() {
        let mut table = Table::new(3 * 34);
        for name in [b"a", b"b", b"c"] {
            table.insert(Entry::new(name, b"1"));
        }
        assert_eq!(table.dynamic().0, 3 * 34);
        table.insert(Entry::new(b"d", b"1"));
        assert_eq!(names(&table), [b"d", b"c", b"b"]);
        table.insert(Entry::new(b"e", b"12"));
        assert_eq!(names(&table), [b"e", b"d"]);
        table.resize(68);
        assert_eq!(names(&table), [b"e"]);
        table.resize(0);
        assert_eq!(table.dynamic(), (0, vec![]));
        table.insert(Entry::new(b"", b""));
        assert_eq!(table.dynamic(), (0, vec![]));
    }

    #[test]
    fn an_entry_that_is_too_large_empties_the_table() {
        let mut table = Table::new(64);
        table.insert(Entry::new(b"a", b"1"));
        table.insert(Entry::new(b"b", &[0; 32]));
        assert_eq!(table.dynamic(), (0, vec![]));
        table.insert(Entry::new(b"b", &[0; 31]));
        assert_eq!(table.dynamic().0, 64);
    }

    proptest! {
        #[test]
        fn the_size_is_right_and_within_the_limit(
            limit in 0_usize..400,
            steps in prop::collection::vec((0_usize..80, 0_usize..80, prop::option::weighted(0.1, 0_usize..400)), 0..60),
        ) {
            let mut table = Table::new(limit);
            for (name, value, resize) in steps {
                match resize {
                    Some(limit) => table.resize(limit),
                    None => table.insert(Entry::new(&vec![b'n'; name], &vec![b'v'; value])),
                }
                let (size, fields) = table.dynamic();
                prop_assert!(size <= table.limit);
                prop_assert_eq!(size, fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>());
            }
        }
    }
}
