//! Windows (RFC 9113, section 5.2): how much one side may still send.

use super::frame::WINDOW_MOST;

/// What the other side may send us.
#[derive(Debug)]
pub struct Incoming {
    /// As much as it may send ahead of whoever reads.
    most: u32,
    window: i64,
    /// Was read, and not granted anew yet.
    owed: u32,
}

impl Incoming {
    /// `granted`: what the other side knows of already.
    pub fn new(most: u32, granted: u32) -> Self {
        Self { most, window: i64::from(granted), owed: 0 }
    }

    /// False: it had no room for that.
    #[must_use]
    pub fn take(&mut self, bytes: u32) -> bool {
        self.window -= i64::from(bytes);
        self.window >= 0
    }

    /// So much was read. What is to be granted now: half a window at a time, so that it is not said for each piece.
    pub fn release(&mut self, bytes: u32) -> Option<u32> {
        self.owed = self.owed.saturating_add(bytes);
        (self.owed >= self.most / 2 && self.owed > 0).then(|| {
            self.window += i64::from(self.owed);
            std::mem::take(&mut self.owed)
        })
    }
}

/// What we may send. A setting may make it negative (RFC 9113, section 6.9.2).
#[derive(Clone, Copy, Debug)]
pub struct Outgoing(i64);

impl Outgoing {
    pub fn new(bytes: u32) -> Self {
        Self(i64::from(bytes))
    }

    /// False: that would be more than a window can be.
    #[must_use]
    pub fn change(&mut self, by: i64) -> bool {
        self.0 += by;
        self.0 <= WINDOW_MOST
    }

    pub fn spend(&mut self, bytes: usize) {
        self.0 -= i64::try_from(bytes).unwrap_or(WINDOW_MOST);
    }

    pub fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_window_is_granted_at_a_time_and_no_more_is_taken() {
        let mut window = Incoming::new(100, 100);
        assert!(window.take(100));
        assert_eq!((window.release(49), window.release(1)), (None, Some(50)));
        assert!(window.take(50) && !window.take(1));
    }

    #[test]
    fn what_we_may_send_can_be_negative_and_not_too_much() {
        let mut window = Outgoing::new(10);
        window.spend(4);
        assert_eq!(window.room(), 6);
        assert!(window.change(-20));
        assert_eq!(window.room(), 0);
        assert!(window.change(WINDOW_MOST + 14) && !window.change(1));
    }
}
