//! A connection to Redis that is made when it is needed and made anew when it is lost. Every call has a deadline, and after a
//! failure calls fail at once for a short while, so that nobody waits for a dead server and not all come back at one moment.

use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Script, Value};
use tokio::runtime::Handle;

use super::answer::Answer;
use super::source::{Source, patience};
use crate::clock;
use crate::store::StoreError;
use crate::time::BootTime;

/// To be connected.
pub const CONNECT: Duration = Duration::from_secs(1);
/// To be answered.
pub const ANSWER: Duration = Duration::from_secs(1);
/// After a second failure nothing is tried for a while that doubles with each further one.
const PAUSE: Duration = Duration::from_millis(25);
const PAUSE_MOST: Duration = Duration::from_millis(400);
/// The one key every script is given: it stands for the slot of all.
const HEAD: &str = "{tg}:head";

/// One connection. Calls from many tasks share it and are answered in order.
pub struct Lane {
    source: Source,
    /// Where connections live: a runtime that is there for as long as the store.
    runtime: Handle,
    open: tokio::sync::Mutex<Option<Open>>,
    breaker: Mutex<Breaker>,
}

#[derive(Clone)]
struct Open {
    number: u64,
    connection: MultiplexedConnection,
}

/// Remembers failures, so that the next calls need not find out for themselves.
#[derive(Default)]
struct Breaker {
    connections: u64,
    /// The connection over which the last script was answered.
    answered: u64,
    failures: u32,
    closed_until: Option<BootTime>,
}

impl Lane {
    pub fn new(source: Source, runtime: Handle) -> Self {
        Self { source, runtime, open: tokio::sync::Mutex::default(), breaker: Mutex::default() }
    }

    /// Runs a script, and once more where the connection was cut: whatever scripts do, doing it twice is doing it once. An error says
    /// nothing about whether it ran.
    pub async fn call(&self, script: &Script, arguments: &[&[u8]]) -> Result<Answer, StoreError> {
        let mut invocation = script.prepare_invoke();
        invocation.key(HEAD);
        for argument in arguments {
            invocation.arg(*argument);
        }
        let mut open = self.open().await?;
        let mut value = invocation.invoke_async(&mut open.connection).await;
        if value.as_ref().is_err_and(|error| self.may_ask_again(error)) {
            self.lost(&open).await;
            open = self.open().await?;
            value = invocation.invoke_async(&mut open.connection).await;
        }
        let value = self.judged(&open, value).await?;
        self.breaker.lock().answered = open.number;
        Answer::of(value)
    }

    /// The connection was cut, or at its other end is not who has the store.
    fn may_ask_again(&self, error: &RedisError) -> bool {
        self.source.follows(error) || (error.is_connection_dropped() && !error.is_timeout())
    }

    /// For threads that run no tasks.
    pub fn call_and_block(&self, script: &Script, arguments: &[&[u8]]) -> Result<Answer, StoreError> {
        self.runtime.block_on(self.call(script, arguments))
    }

    pub async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        let mut open = self.open().await?;
        let value = open.connection.send_packed_command(command).await;
        self.judged(&open, value).await
    }

    /// On the connection over which the last script was answered; an error where that is lost. It blocks.
    pub fn command_behind_and_block(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.runtime.block_on(async {
            let mut open = self.open().await?;
            if open.number != self.breaker.lock().answered {
                return Err(StoreError::Away("redis: the connection was lost on the way".to_owned()));
            }
            let value = open.connection.send_packed_command(command).await;
            self.judged(&open, value).await
        })
    }

    pub fn command_and_block(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.runtime.block_on(self.command(command))
    }

    /// For threads that run no tasks.
    pub fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn pause_and_block(&self, pause: Duration) {
        self.runtime.block_on(async move { tokio::time::sleep(pause).await });
    }

    async fn open(&self) -> Result<Open, StoreError> {
        let mut open = self.open.lock().await;
        if let Some(open) = &*open {
            return Ok(open.clone());
        }
        self.check()?;
        let source = self.source.clone();
        let connecting = self.runtime.spawn(async move { source.connect(&patience()).await });
        let connected = match connecting.await {
            Ok(connected) => connected,
            Err(_) => return Err(StoreError::Away("the store is closed".to_owned())),
        };
        match connected {
            Ok(connection) => {
                let mut breaker = self.breaker.lock();
                breaker.connections += 1;
                let made = Open { number: breaker.connections, connection };
                *open = Some(made.clone());
                Ok(made)
            }
            Err(error) => {
                self.failed();
                Err(away(&error))
            }
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let breaker = self.breaker.lock();
        match breaker.closed_until {
            Some(until) if clock::boot() < until => {
                Err(StoreError::Away(format!("redis was not to be had {} times in a row", breaker.failures)))
            }
            _ => Ok(()),
        }
    }

    async fn judged(&self, open: &Open, value: Result<Value, RedisError>) -> Result<Value, StoreError> {
        match value {
            Ok(value) => {
                let mut breaker = self.breaker.lock();
                (breaker.failures, breaker.closed_until) = (0, None);
                Ok(value)
            }
            Err(error) => {
                if is_lost(&error) {
                    self.lost(open).await;
                }
                Err(away(&error))
            }
        }
    }

    async fn lost(&self, lost: &Open) {
        let mut open = self.open.lock().await;
        // Others may have noticed first, and there may be a new connection already.
        if open.as_ref().is_some_and(|now| now.number == lost.number) {
            *open = None;
            self.failed();
        }
    }

    fn failed(&self) {
        let mut breaker = self.breaker.lock();
        breaker.failures = breaker.failures.saturating_add(1);
        // A connection may get lost while all is well; a second failure behind it says more.
        if breaker.failures > 1 {
            let pause = PAUSE.saturating_mul(1 << breaker.failures.min(8)).min(PAUSE_MOST);
            breaker.closed_until = Some(clock::boot().plus(jittered(pause)));
        }
    }
}

/// The connection is of no use any longer: it broke, it is too slow, or at its other end is no master now.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING" | "NOAUTH"))
}

/// Whatever Redis refuses to do now, it may do later. Its text names commands and keys, never their contents.
fn away(error: &RedisError) -> StoreError {
    StoreError::Away(format!("redis: {error}"))
}

/// Between this long and twice as long.
pub fn jittered(least: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without randomness everybody waits for the least, which is no harm.
    let _ = getrandom::fill(&mut bytes);
    least.mul_f64(1.0 + f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX))
}
