//! A client of the control API, as the command line needs it: one call after the other, with errors that say what to do.

use std::env;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::prompt;
use crate::app::tls;

/// Where the control plane is.
#[derive(Clone, Debug, Args)]
pub struct Control {
    /// The URL of the control API. The token comes from TOLLGATE_TOKEN.
    #[arg(long, value_name = "URL", env = "TOLLGATE_CONTROL", default_value = "http://127.0.0.1:8081", global = true)]
    pub control: String,
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0} is not a URL; write it like http://127.0.0.1:8081")]
    Url(String),
    #[error("{url} cannot be reached: {source}. Is it running? Name another one with --control or TOLLGATE_CONTROL")]
    Connect { url: String, source: io::Error },
    #[error("{url} broke off: {source}")]
    Broken { url: String, source: hyper::Error },
    #[error("the token holds characters that cannot be sent")]
    Request(#[from] http::Error),
    #[error("no token: set TOLLGATE_TOKEN to {0}")]
    NoToken(&'static str),
    #[error("{0}")]
    Refused(Refused),
    #[error("the answer of the control plane cannot be read: {0}")]
    Answer(&'static str),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What the control plane said no with.
#[derive(Debug, thiserror::Error)]
#[error("refused ({status} {code}): {text}{}", self.hint())]
pub struct Refused {
    pub status: StatusCode,
    pub code: String,
    text: String,
}

impl Refused {
    fn of(status: StatusCode, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| body.get(field).and_then(Value::as_str).map(str::to_owned);
        let mut said = [text("title"), text("detail")].into_iter().flatten().collect::<Vec<_>>().join(" ");
        if let Some(at) = text("resets_at") {
            said.push_str(&format!(" The next day begins at {at}."));
        }
        if let Some(seconds) = body.get("retry_after_s") {
            said.push_str(&format!(" Try again in {seconds} s."));
        }
        Self { status, code: text("code").unwrap_or_else(|| "no code".to_owned()), text: said }
    }

    fn hint(&self) -> &'static str {
        match self.code.as_str() {
            "unauthenticated" => {
                " TOLLGATE_TOKEN is not valid any more, or belongs to another control plane; unset it to sign in anew."
            }
            "root_only" => " Unset TOLLGATE_TOKEN and sign in as the root user of the account.",
            "forbidden" => " This needs another token in TOLLGATE_TOKEN, most likely the operator's.",
            "key_limit_reached" => {
                " Delete a key, or have the operator raise it: tollgate account limits ID --active-max N"
            }
            "daily_limit_reached" => " The operator can raise it: tollgate account limits ID --daily-max N",
            "identity_unverified" => " The operator verifies it: tollgate account verify ID",
            "no_cluster" => " The operator adds one: tollgate cluster create ACCOUNT --host NAME --upstream URL",
            "code_invalid" => " Is the clock of the authenticator right?",
            "store_frozen" => " See: tollgate store status",
            _ => "",
        }
    }
}

/// A server to speak HTTP/1.1 to, by its URL.
#[derive(Clone, Debug)]
pub struct Endpoint {
    url: String,
    host: String,
    tls: bool,
    port: u16,
}

impl Endpoint {
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_owned());
        let url = url.trim_end_matches('/').to_owned();
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { url, host, tls, port })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn authority(&self) -> &str {
        self.url.split_once("://").map_or("", |(_, authority)| authority)
    }

    /// A new connection, served by the runtime it is opened on.
    pub async fn open(&self) -> Result<http1::SendRequest<Full<Bytes>>, ClientError> {
        if self.tls {
            self.handshake(self.connect_tls().await?).await
        } else {
            self.handshake(self.connect().await?).await
        }
    }

    /// For `map_err`: what broke.
    pub fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken { url: self.url.clone(), source }
    }

    async fn connect(&self) -> Result<TcpStream, ClientError> {
        let connected = TcpStream::connect((self.host.as_str(), self.port)).await;
        connected.map_err(|source| ClientError::Connect { url: self.url.clone(), source })
    }

    async fn connect_tls(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ClientError> {
        let mut config = (*tls::client()).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(self.host.clone()).map_err(|_| ClientError::Url(self.url.clone()))?;
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, self.connect().await?).await;
        shaken.map_err(|source| ClientError::Connect { url: self.url.clone(), source })
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
    ) -> Result<http1::SendRequest<Full<Bytes>>, ClientError> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|source| self.broken(source))?;
        // What ends it is seen by the calls on it.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Speaks to one control plane.
pub struct Client {
    at: Endpoint,
    token: Option<SecretString>,
    runtime: Runtime,
}

impl Client {
    fn new(control: &Control) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { at: Endpoint::parse(&control.control)?, token: None, runtime })
    }

    /// With the operator's token, or whichever is in `TOLLGATE_TOKEN`.
    pub fn with_token(control: &Control, whose: &'static str) -> Result<Self, ClientError> {
        let token = env::var("TOLLGATE_TOKEN").map_err(|_| ClientError::NoToken(whose))?;
        Ok(Self { token: Some(SecretString::from(token.trim())), ..Self::new(control)? })
    }

    pub fn as_operator(control: &Control, token: SecretString) -> Result<Self, ClientError> {
        Ok(Self { token: Some(token), ..Self::new(control)? })
    }

    /// With no token at all.
    pub fn anonymous(control: &Control) -> Result<Self, ClientError> {
        Self::new(control)
    }

    /// Runs `work` as a user: with the session in `TOLLGATE_TOKEN`, or in one that is opened for it and ended behind it.
    pub fn as_user<T>(control: &Control, work: impl FnOnce(&Self) -> Result<T, ClientError>) -> Result<T, ClientError> {
        if env::var_os("TOLLGATE_TOKEN").is_some() {
            return work(&Self::with_token(control, "a session token")?);
        }
        let mut client = Self::new(control)?;
        client.token = Some(client.sign_in(None)?.0);
        let done = work(&client);
        // A session that cannot be ended now ends by itself.
        let _ = client.call(Method::DELETE, "/v1/session", None);
        done
    }

    /// Opens a session and leaves it open: the token, and the whole answer without it.
    pub fn open_session(control: &Control, email: Option<String>) -> Result<(SecretString, Value), ClientError> {
        Self::new(control)?.sign_in(email)
    }

    fn sign_in(&self, email: Option<String>) -> Result<(SecretString, Value), ClientError> {
        let email = match email.or_else(|| env::var("TOLLGATE_EMAIL").ok()) {
            Some(email) => email,
            None => prompt::line("E-mail address: ")?,
        };
        let password = prompt::secret("TOLLGATE_PASSWORD", "Password: ")?;
        let ask = json!({"email": email, "password": password.expose_secret()});
        let mut session = self.call(Method::POST, "/v1/session", Some(&ask))?;
        let token = session.get_mut("token").map(Value::take);
        let token = token.as_ref().and_then(Value::as_str).map(SecretString::from);
        Ok((token.ok_or(ClientError::Answer("it holds no token"))?, session))
    }

    /// Exchanges a code for a grant.
    pub fn step_up(&self, action: &str, key_id: Option<&str>, code: Option<String>) -> Result<String, ClientError> {
        let code = match code {
            Some(code) => code,
            None => prompt::line("Code of the authenticator: ")?,
        };
        let mut ask = json!({"action": action, "code": code.trim()});
        if let Some(key_id) = key_id {
            ask["key_id"] = json!(key_id);
        }
        let granted = self.call(Method::POST, "/v1/step-up", Some(&ask))?;
        let grant = granted.get("grant").and_then(Value::as_str).map(str::to_owned);
        grant.ok_or(ClientError::Answer("it holds no grant"))
    }

    /// One call; anything but a success is an error. No content is `Value::Null`.
    pub fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        self.call_with(method, path, body, None)
    }

    pub fn call_with(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        grant: Option<&str>,
    ) -> Result<Value, ClientError> {
        let mut answer = Vec::new();
        self.send(method, path, body, grant, &mut answer)?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|_| ClientError::Answer("it is not JSON"))
    }

    /// Passes an answer on as it comes.
    pub fn fetch(&self, path: &str, to: &mut dyn Write) -> Result<HeaderMap, ClientError> {
        self.send(Method::GET, path, None, None, to)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        grant: Option<&str>,
        to: &mut dyn Write,
    ) -> Result<HeaderMap, ClientError> {
        let request = self.request(method, path, body, grant)?;
        self.runtime.block_on(async {
            let sent = self.at.open().await?.send_request(request).await;
            self.read(sent.map_err(|source| self.at.broken(source))?, to).await
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        grant: Option<&str>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.at.authority());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        if let Some(grant) = grant {
            request = request.header("step-up-grant", grant);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        Ok(request.body(Full::new(body))?)
    }

    async fn read(&self, response: Response<Incoming>, to: &mut dyn Write) -> Result<HeaderMap, ClientError> {
        let broken = |source| self.at.broken(source);
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            let body = body.collect().await.map_err(broken)?.to_bytes();
            return Err(ClientError::Refused(Refused::of(head.status, &body)));
        }
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                to.write_all(&data)?;
            }
        }
        Ok(head.headers)
    }
}
