//! Changes wait in a bounded queue; a thread of its own takes those that are waiting and settles them together. So a crowd of
//! changes shares one commit, and no async thread waits for it.

use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::Changes;
use crate::store::StoreError;

/// Changes that may wait; whoever comes then waits for a place in the queue.
const QUEUE: usize = 1024;
/// Changes that are settled together at most.
const BATCH: usize = 256;

/// The queue to the thread. Dropping it lets the thread finish what waits and end.
pub struct Queue {
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

/// A change in the queue, whatever it answers.
pub trait Job: Send {
    /// Runs on a transaction; again, where an earlier one came to nothing. False where it failed and what it wrote must not stay.
    fn run(&mut self, tx: &mut dyn Changes) -> bool;
    /// Says to the caller what came of the last run.
    fn answer(self: Box<Self>);
    /// Says to the caller that nothing is known to have come of it.
    fn fail(self: Box<Self>, error: StoreError);
}

impl Queue {
    /// `settle` answers or fails every change it is given.
    pub fn start(mut settle: impl FnMut(Vec<Box<dyn Job>>) + Send + 'static) -> Result<Self, StoreError> {
        let (queue, mut jobs) = mpsc::channel::<Box<dyn Job>>(QUEUE);
        let work = move || {
            while let Some(first) = jobs.blocking_recv() {
                let mut batch = vec![first];
                while batch.len() < BATCH {
                    let Ok(job) = jobs.try_recv() else { break };
                    batch.push(job);
                }
                settle(batch);
            }
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(work);
        let thread = thread.map_err(|error| StoreError::Away(format!("no thread for the writer: {error}")))?;
        Ok(Self { jobs: Some(queue), thread: Some(thread) })
    }

    /// As [`Backend::write`](super::Backend::write).
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut dyn Changes) -> Result<T, E> + Send + 'static,
    {
        let gone = || E::from(StoreError::Away("the writer has stopped".to_owned()));
        let (done, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Box::new(Waiting { change, outcome: None, done })).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

struct Waiting<T, E, F> {
    change: F,
    outcome: Option<Result<T, E>>,
    done: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Waiting<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: Fn(&mut dyn Changes) -> Result<T, E> + Send,
{
    fn run(&mut self, tx: &mut dyn Changes) -> bool {
        let outcome = (self.change)(tx);
        let good = outcome.is_ok();
        self.outcome = Some(outcome);
        good
    }

    fn answer(self: Box<Self>) {
        let not_run = || Err(E::from(StoreError::Away("the change did not run".to_owned())));
        // A caller that has gone away does not undo its change.
        let _ = self.done.send(self.outcome.unwrap_or_else(not_run));
    }

    fn fail(self: Box<Self>, error: StoreError) {
        let _ = self.done.send(Err(E::from(error)));
    }
}

impl StoreError {
    /// The same error for another caller of the same commit.
    pub fn again(&self) -> Self {
        match self {
            Self::Away(why) => Self::Away(why.clone()),
            Self::Frozen(why) => Self::Frozen(why.clone()),
            Self::Corrupt(why) => Self::Corrupt(why.clone()),
            Self::Archived(hour) => Self::Archived(*hour),
        }
    }
}
