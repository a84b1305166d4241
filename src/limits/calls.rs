//! Calls in flight in the whole gateway, of whomever: what is above the cap is overload, and is told to come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::verdict::Denial;

/// Counts the calls in flight. Without a cap it counts nothing and costs nothing.
#[derive(Debug)]
pub struct CallCap(Option<Arc<Counted>>);

/// A place among the calls in flight, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it says that the call is over"]
pub struct CallPlace(Option<Arc<Counted>>);

#[derive(Debug)]
struct Counted {
    most: usize,
    in_flight: AtomicUsize,
}

impl CallCap {
    /// `most`: calls at once; 0 is no cap.
    pub fn new(most: usize) -> Self {
        Self((most > 0).then(|| Arc::new(Counted { most, in_flight: AtomicUsize::new(0) })))
    }

    pub fn enter(&self) -> Result<CallPlace, Denial> {
        let Some(counted) = &self.0 else { return Ok(CallPlace(None)) };
        let one_more = |now: usize| (now < counted.most).then_some(now + 1);
        let taken = counted.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.map(|_| CallPlace(Some(Arc::clone(counted)))).map_err(|_| Denial::Overloaded)
    }
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        if let Some(counted) = &self.0 {
            counted.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_the_call_is_over_and_none_is_free_beyond_the_cap() {
        let cap = CallCap::new(2);
        let (first, _second) = (cap.enter().unwrap(), cap.enter().unwrap());
        assert_eq!(cap.enter().unwrap_err(), Denial::Overloaded);
        drop(first);
        let _third = cap.enter().unwrap();
        assert_eq!(cap.enter().unwrap_err(), Denial::Overloaded);
        let none = CallCap::new(0);
        let held: Vec<_> = (0..1000).map(|_| none.enter().unwrap()).collect();
        assert_eq!(held.len(), 1000);
    }
}
