//! `tollgate probe`: sets an account of its own up, and goes round until it is told to stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::{HeaderValue, Method};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::client::{Client, ClientError, Control};
use crate::clock;
use crate::config::written;
use crate::probe::gateways::Gateways;
use crate::probe::report::{Report, Totals};
use crate::probe::{Said, Standing};

/// The account of the probe. The address is nobody's (RFC 6761).
const EMAIL: &str = "probe@tollgate.invalid";
const HOST: &str = "probe.tollgate.invalid";
/// It deletes what it creates, and creates without end.
const ACTIVE_MAX: u32 = 16;
const DAILY_MAX: u32 = 100_000_000;
/// How long a delete may wait for its 200.
const WAIT: &str = "10s";

/// Watch the promise from outside: create a key, call every gateway, delete it, call again. Needs the operator's token in
/// TOLLGATE_TOKEN. It has an account of its own, whose calls reach no upstream and are not billed.
#[derive(Debug, Args)]
pub struct Probe {
    #[command(flatten)]
    control: Control,
    /// The URL of a gateway; once for each.
    #[arg(long = "gateway", value_name = "URL", required = true)]
    gateways: Vec<String>,
    /// The time between two rounds.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    every: Duration,
    /// End after so many rounds; without it, run until a signal.
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// Where /metrics is served.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

/// Why the probe could not go on, or what it found.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the probe cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(
        "the promise was broken {} times in {} rounds; the lines above say where. Keep the logs of these gateways",
        .0.violations, .0.rounds
    )]
    Violated(Totals),
}

/// A probe that is set up.
struct Running {
    control: Control,
    operator: Client,
    account: String,
    password: SecretString,
    root: Client,
    gateways: Gateways,
    report: Arc<Report>,
    runtime: Runtime,
}

/// A key that was created.
struct Made {
    id: String,
    key: HeaderValue,
}

/// How a delete was answered.
enum Deleted {
    Everywhere,
    /// Final after this time, once the store has it.
    Pending {
        at_latest: Option<Duration>,
    },
}

impl Probe {
    pub fn run(self) -> Result<String, ProbeError> {
        let report = Arc::new(Report::new()?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut stopped = stop_on_a_signal(&runtime)?;
        if let Some(address) = self.listen {
            serve(&runtime, address, Arc::clone(&report))?;
        }
        let mut running = Running::set_up(self.control.clone(), &self.gateways, report, runtime)?;
        let mut left = self.rounds.unwrap_or(u64::MAX);
        while left > 0 && !*stopped.borrow() {
            running.round_or_say_why(self.control.json);
            left -= 1;
            if left > 0 {
                running.pause(self.every, &mut stopped);
            }
        }
        let totals = running.report.totals();
        if totals.violations > 0 {
            return Err(ProbeError::Violated(totals));
        }
        Ok(if self.control.json { format!("{}\n", json!(totals)) } else { in_words(totals) })
    }
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    written::duration(text).ok_or("write a duration like 250ms, 5s or 2m")
}

fn in_words(totals: Totals) -> String {
    let Totals { rounds, failed_rounds, pending, .. } = totals;
    format!(
        "{rounds} rounds, 0 violations; {pending} deletes were answered 202 at first, {failed_rounds} rounds did not come to their end.\n"
    )
}

fn stop_on_a_signal(runtime: &Runtime) -> Result<watch::Receiver<bool>, ProbeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let (stop, stopped) = watch::channel(false);
    let _inside = runtime.enter();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    runtime.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    });
    Ok(stopped)
}

fn serve(runtime: &Runtime, address: SocketAddr, report: Arc<Report>) -> Result<(), ProbeError> {
    let failed = |source| ProbeError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    eprintln!("tollgate: metrics at http://{at}/metrics");
    let metrics = axum::routing::get(move || std::future::ready(report.text().unwrap_or_default()));
    let routes = axum::Router::new().route("/metrics", metrics);
    runtime.spawn(async move {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, routes).await,
            Err(error) => Err(error),
        }
    });
    Ok(())
}

impl Running {
    /// An account with a cluster and nothing left of an earlier run. Its root user gets a new password at each start, so that
    /// none has to be kept.
    fn set_up(
        control: Control,
        gateways: &[String],
        report: Arc<Report>,
        runtime: Runtime,
    ) -> Result<Self, ProbeError> {
        let gateways = Gateways::parse(gateways)?;
        let operator = Client::with_token(&control, "the operator's token")?;
        let account = match own_account(&operator)? {
            Some(account) => account,
            None => create_account(&operator)?,
        };
        let path = format!("/v1/accounts/{account}");
        operator.call(
            Method::PATCH,
            &path,
            Some(&json!({"verified": true, "active_max": ACTIVE_MAX, "daily_max": DAILY_MAX})),
        )?;
        let clusters = operator.call(Method::GET, &format!("{path}/clusters"), None)?;
        if clusters["items"].as_array().is_none_or(Vec::is_empty) {
            let cluster = json!({"hosts": [HOST], "upstreams": ["http://127.0.0.1:9"], "name": "probe"});
            operator.call(Method::POST, &format!("{path}/clusters"), Some(&cluster))?;
        }
        let reset =
            operator.call(Method::POST, &format!("{path}/reset"), Some(&json!({"reason": "tollgate probe starts"})))?;
        let password = SecretString::from(text(&reset, "password")?);
        let root = sign_in(&control, &password)?;
        let running = Self { control, operator, account, password, root, gateways, report, runtime };
        running.delete_what_is_left()?;
        Ok(running)
    }

    fn delete_what_is_left(&self) -> Result<(), ProbeError> {
        let keys = self.operator.call(Method::GET, &format!("/v1/accounts/{}/keys", self.account), None)?;
        for key in keys["keys"].as_array().into_iter().flatten() {
            self.delete(&text(key, "id")?)?;
        }
        Ok(())
    }

    /// Until the next round is due, or a signal came.
    fn pause(&self, every: Duration, stopped: &mut watch::Receiver<bool>) {
        self.runtime.block_on(async {
            // However it ended, the caller looks whether it goes on.
            let _ = tokio::time::timeout(every, stopped.wait_for(|stopped| *stopped)).await;
        });
    }

    fn round_or_say_why(&mut self, as_json: bool) {
        let ended = self.round(as_json);
        self.report.round(ended.is_ok());
        if let Err(error) = ended {
            say(
                as_json,
                &json!({"failed_round": error.to_string()}),
                &format!("a round did not come to its end: {error}"),
            );
            // Most likely the session is over, or the control plane was away.
            if let Ok(root) = sign_in(&self.control, &self.password) {
                self.root = root;
            }
            if let Err(error) = self.delete_what_is_left() {
                say(as_json, &json!({"failed_clean_up": error.to_string()}), &format!("keys are left over: {error}"));
            }
        }
    }

    fn round(&mut self, as_json: bool) -> Result<(), ProbeError> {
        let made = self.create()?;
        self.call(&made, Standing::Live, as_json);
        let asked = clock::boot();
        match self.delete(&made.id)? {
            Deleted::Everywhere => self.report.revoked(clock::boot().since(asked)),
            Deleted::Pending { at_latest } => {
                self.report.pending();
                // Without a bound nothing is promised yet.
                let Some(at_latest) = at_latest else { return Ok(()) };
                self.runtime.block_on(tokio::time::sleep(at_latest));
            }
        }
        self.call(&made, Standing::Deleted, as_json);
        Ok(())
    }

    fn create(&self) -> Result<Made, ProbeError> {
        let made = self.root.call(Method::POST, "/v1/keys", Some(&json!({"name": "probe"})))?;
        let key =
            HeaderValue::try_from(text(&made, "key")?).map_err(|_| ClientError::Answer("its key cannot be sent"))?;
        Ok(Made { id: text(&made, "id")?, key })
    }

    fn delete(&self, key_id: &str) -> Result<Deleted, ProbeError> {
        let path = format!("/v1/accounts/{}/keys/{key_id}?wait={WAIT}", self.account);
        let receipt = self.operator.call(Method::DELETE, &path, Some(&json!({"reason": "tollgate probe"})))?;
        Ok(match receipt["revoked"].as_str() {
            Some("everywhere") => Deleted::Everywhere,
            _ => Deleted::Pending { at_latest: receipt["at_latest_ms"].as_u64().map(Duration::from_millis) },
        })
    }

    fn call(&mut self, made: &Made, standing: Standing, as_json: bool) {
        let said: Vec<(String, Said)> = self.runtime.block_on(self.gateways.call(&made.key));
        for (gateway, violation) in self.report.heard(standing, &said) {
            let kind = violation.label();
            let line =
                json!({"violation": kind, "gateway": gateway, "key_id": made.id, "at": clock::wall().to_string()});
            say(as_json, &line, &format!("VIOLATION {kind}: {gateway}, key {}, at {}", made.id, clock::wall()));
        }
    }
}

/// On stderr, since it comes while the probe runs.
fn say(as_json: bool, line: &Value, words: &str) {
    if as_json { eprintln!("{line}") } else { eprintln!("tollgate: {words}") }
}

fn sign_in(control: &Control, password: &SecretString) -> Result<Client, ProbeError> {
    let nobody = Client::anonymous(control)?;
    let ask = json!({"email": EMAIL, "password": password.expose_secret()});
    let session = nobody.call(Method::POST, "/v1/session", Some(&ask))?;
    Ok(Client::as_operator(control, SecretString::from(text(&session, "token")?))?)
}

fn own_account(operator: &Client) -> Result<Option<String>, ProbeError> {
    let mut path = "/v1/accounts?limit=1000".to_owned();
    loop {
        let page = operator.call(Method::GET, &path, None)?;
        let mine = page["items"].as_array().into_iter().flatten().find(|account| account["email"] == EMAIL);
        if let Some(account) = mine {
            return Ok(Some(text(account, "account_id")?));
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/accounts?limit=1000&cursor={next}"),
            None => return Ok(None),
        }
    }
}

fn create_account(operator: &Client) -> Result<String, ProbeError> {
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(|error| ClientError::Io(error.into()))?;
    let password = data_encoding::BASE64URL_NOPAD.encode(&random);
    let ask = json!({"email": EMAIL, "password": password, "verified": true, "name": "Tollgate probe"});
    text(&operator.call(Method::POST, "/v1/accounts", Some(&ask))?, "account_id")
}

fn text(value: &Value, field: &'static str) -> Result<String, ProbeError> {
    let found = value.get(field).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| ClientError::Answer("it lacks what the probe needs").into())
}
