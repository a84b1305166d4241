//! Where the usage of a store is kept: in it, or on a server of its own, of which this asks the same questions.
//!
//! On a server of its own there are no epochs: whoever sends something hears which server took it. Only the numbers of the change
//! feed must not go back, and the scripts see to that.

use std::sync::Arc;

use super::answer::{Answer, unexpected};
use super::lane::Lane;
use super::place::Place;
use super::scripts::{self, UsageScript};
use super::source::{Sentinels, Source};
use super::{Engine, opening};
use crate::principal::StoreId;
use crate::store::StoreError;

/// How a ledger on a server of its own is come to.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// `redis://` or `rediss://`, as for a store.
    pub url: String,
    pub sentinels: Option<Sentinels>,
}

/// The ledger, over a connection of its own.
pub struct LedgerAt {
    lane: Lane,
    kept: Kept,
}

enum Kept {
    /// With the store itself.
    InStore(Arc<Place>),
    Apart {
        store_id: StoreId,
        name: String,
    },
}

impl LedgerAt {
    pub fn in_store(lane: Lane, place: Arc<Place>) -> Self {
        Self { lane, kept: Kept::InStore(place) }
    }

    pub fn apart(settings: &LedgerSettings, engine: &Engine, store_id: StoreId) -> Result<Self, StoreError> {
        let source = Source::new(&settings.url, settings.sentinels.as_ref())?;
        let lane = Lane::new(source, engine.handle.clone());
        Ok(Self { lane, kept: Kept::Apart { store_id, name: store_id.to_string() } })
    }

    pub fn is_apart(&self) -> bool {
        matches!(self.kept, Kept::Apart { .. })
    }

    /// The first argument of every script.
    pub fn name(&self) -> &[u8] {
        match &self.kept {
            Kept::InStore(place) => place.name(),
            Kept::Apart { name, .. } => name.as_bytes(),
        }
    }

    /// The answer, if it is one of the ledger that is meant.
    pub async fn call(&self, script: &UsageScript, arguments: &[&[u8]]) -> Result<Answer, StoreError> {
        let Kept::Apart { store_id, .. } = &self.kept else {
            return self.judged(self.lane.call(&script.in_store, arguments).await?);
        };
        let mut answer = self.lane.call(&script.apart, arguments).await?;
        if answer.said == "GONE" {
            // It was emptied, or is new. What is kept elsewhere comes again, once gateways notice.
            tracing::warn!("the server of the ledger is empty; usage that gateways still have is sent to it again");
            self.judged(self.lane.call(&scripts::TOUCH.apart, &[store_id.to_string().as_bytes()]).await?)?;
            answer = self.lane.call(&script.apart, arguments).await?;
        }
        self.judged(answer)
    }

    /// The answer, if it is the good one.
    pub async fn good(&self, script: &UsageScript, arguments: &[&[u8]]) -> Result<Answer, StoreError> {
        let answer = self.call(script, arguments).await?;
        if answer.said == "OK" { Ok(answer) } else { Err(unexpected("an answer of an unknown kind")) }
    }

    /// Tells places in the change feed of a ledger on a server of its own; with none it is only asked whether it is there.
    pub async fn touch(&self, places: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut arguments = vec![self.name()];
        arguments.extend(places.iter().map(Vec::as_slice));
        self.good(&scripts::TOUCH, &arguments).await.map(drop)
    }

    /// For threads that run no tasks.
    pub fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.lane.wait_for(future)
    }

    /// Whether usage can be written. A ledger in the store is there where the store is.
    pub async fn check(&self) -> Result<(), StoreError> {
        if self.is_apart() { self.touch(&[]).await } else { Ok(()) }
    }

    /// Makes sure, once at the start, that everybody keeps the usage of this store in the same place, and that it is of no other
    /// store. A ledger that is away may come later.
    pub async fn come_to(&self, store: &Lane, place: &Place) -> Result<(), StoreError> {
        let kept: &[u8] = if self.is_apart() { b"apart" } else { b"here" };
        match store.call(&scripts::LEDGER_IS, &[place.name(), kept]).await {
            Ok(answer) => match answer.said.as_str() {
                "OK" => {}
                "HERE" => return Err(elsewhere("in the store itself", "leave meter.ledger_url out")),
                "APART" => return Err(elsewhere("on a server of its own", "name it in meter.ledger_url")),
                _ => return Err(unexpected("an answer of an unknown kind")),
            },
            // A store that takes no writes now keeps nobody from starting.
            Err(StoreError::Away(why)) => tracing::warn!(why, "the store cannot say now where its usage is"),
            Err(error) => return Err(error),
        }
        if !self.is_apart() {
            return Ok(());
        }
        match self.touch(&[]).await {
            Err(StoreError::Away(why)) => {
                tracing::warn!(why, "the ledger is not there yet; usage waits for it on the disk");
            }
            came => came?,
        }
        opening::say_what_is_weak(&self.lane, "the ledger", 0).await;
        Ok(())
    }

    fn judged(&self, mut answer: Answer) -> Result<Answer, StoreError> {
        let store_id = match &self.kept {
            Kept::InStore(place) => return place.judged(answer),
            Kept::Apart { store_id, .. } => store_id,
        };
        let frozen = match answer.said.as_str() {
            "OTHER" => format!(
                "the redis at meter.ledger_url has the usage of another deployment, of the store {}; this is the store {store_id}",
                answer.text()?
            ),
            "STORE" => format!(
                "the redis at meter.ledger_url holds a store, {}; name one that holds nothing, or leave it out to keep usage in the store",
                answer.text()?
            ),
            "GONE" => "the redis at meter.ledger_url is empty".to_owned(),
            _ => return Ok(answer),
        };
        Err(StoreError::Frozen(frozen))
    }
}

fn elsewhere(kept: &str, remedy: &str) -> StoreError {
    let moved = "to move it, restore a backup into an empty redis";
    StoreError::Frozen(format!("the usage of this store is kept {kept}: {remedy}; {moved}"))
}
