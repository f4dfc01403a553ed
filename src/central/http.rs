//! One HTTP client per server: TLS, proxy, token, limits, retries.
//!
//! Redirects are never followed: the token stays with the configured address. Answers are read in pieces and cut off at
//! the size limit after decompression, so that a small compressed answer cannot fill the memory.

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Method, NoProxy, Proxy, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::{Host, Url};

use super::error::{CentralError, Place, excerpt};
use super::retry::{self, Again, Repeat};
use super::{Surroundings, init_tls};
use crate::core::name::SourceName;
use crate::core::time::Epoch;

/// How the agent presents itself.
pub const USER_AGENT: &str = concat!("slurm-site-agent/", env!("CARGO_PKG_VERSION"));

/// Longest time to set up a connection; a server that needs more is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept: shorter than what servers and proxies keep it, so that a poll does not run into
/// one that has just been closed.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// Most bytes read of an answer that is only used for an error text.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// Longest address shown in an error, in characters.
const PLACE_CHARS_MAX: usize = 300;
/// Hosts that are never reached through a proxy.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// What one server needs. Holds secrets: not printable.
pub struct HttpSettings {
    /// The source's name, for errors.
    pub server: SourceName,
    /// Base address; requests are joined to it. Ends with `/`.
    pub base: Url,
    /// Headers with secrets: name, text before the secret (such as `Token `), secret.
    pub secret_headers: Vec<(&'static str, &'static str, SecretString)>,
    /// Other headers of every request.
    pub headers: Vec<(&'static str, String)>,
    /// PEM file with CA certificates that are accepted beside the host's.
    pub ca_file: Option<PathBuf>,
    /// Proxy; without one the usual environment variables hold. Never used for loopback.
    pub proxy: Option<Url>,
    /// Longest time of one attempt, from connecting to the last byte.
    pub timeout: Duration,
    /// Largest answer that is read, in bytes after decompression.
    pub response_bytes_max: usize,
    /// Most attempts per request, at least 1.
    pub attempts_max: u32,
}

/// How one server is reached: the same for every kind of server. Holds a secret: not printable.
pub struct Connection {
    /// The source's name in the configuration.
    pub name: SourceName,
    /// Address of the server, with or without the path of its API.
    pub url: String,
    /// Its token.
    pub token: SecretString,
    /// PEM file with CA certificates that are accepted beside the host's.
    pub ca_file: Option<PathBuf>,
    /// Proxy, else the environment's.
    pub proxy: Option<Url>,
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// Largest answer, in bytes.
    pub response_bytes_max: usize,
    /// Most attempts per request.
    pub attempts_max: u32,
}

impl Connection {
    /// A client whose base is the address with exactly one `api` (such as `/api/v2/`) at its end. The token goes into
    /// the header `token.0` behind the text `token.1`.
    pub(super) fn open(
        &self,
        api: &str,
        token: (&'static str, &'static str),
        surroundings: Surroundings,
    ) -> Result<Http, CentralError> {
        let settings = HttpSettings {
            server: self.name.clone(),
            base: api_base(&self.name, &self.url, api)?,
            secret_headers: vec![(token.0, token.1, self.token.clone())],
            headers: Vec::new(),
            ca_file: self.ca_file.clone(),
            proxy: self.proxy.clone(),
            timeout: self.timeout,
            response_bytes_max: self.response_bytes_max,
            attempts_max: self.attempts_max,
        };
        Http::new(settings, surroundings)
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// GET, POST, ...
    pub method: Method,
    /// Path below the base, without a leading `/`.
    pub path: &'a str,
    /// Query parameters in order.
    pub query: &'a [(&'a str, String)],
    /// JSON text to send.
    pub body: Option<String>,
    /// Whether it may be sent twice.
    pub repeat: Repeat,
    /// Longest time of one attempt, where it is not the server's usual one.
    pub timeout: Option<Duration>,
    /// Most attempts, where they are not the server's usual ones.
    pub attempts_max: Option<u32>,
}

impl<'a> Call<'a> {
    /// A request that only reads.
    pub fn get(path: &'a str, query: &'a [(&'a str, String)]) -> Self {
        Self { query, ..Self::bare(Method::GET, path) }
    }

    /// A request to be rid of something. One that is gone already is as good as deleted.
    pub fn delete(path: &'a str) -> Self {
        Self::bare(Method::DELETE, path)
    }

    /// A request with a JSON body. `repeat` says whether sending it twice has the effect of once.
    pub fn send(method: Method, path: &'a str, body: String, repeat: Repeat) -> Self {
        Self { body: Some(body), repeat, ..Self::bare(method, path) }
    }

    fn bare(method: Method, path: &'a str) -> Self {
        let repeat = Repeat::Absolute;
        Self { method, path, query: &[], body: None, repeat, timeout: None, attempts_max: None }
    }
}

/// A successful answer (2xx), whole.
#[derive(Debug)]
pub struct Answer {
    /// Where it came from.
    pub place: Place,
    /// HTTP status.
    pub status: u16,
    /// How many attempts it took.
    pub attempts: u32,
    headers: HeaderMap,
    body: Vec<u8>,
    excerpt: String,
}

impl Answer {
    /// A header's text, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether there is no body.
    pub fn is_empty(&self) -> bool {
        self.body.iter().all(u8::is_ascii_whitespace)
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value, CentralError> {
        serde_json::from_slice(&self.body).map_err(|source| CentralError::NotJson {
            place: self.place.clone(),
            status: self.status,
            excerpt: self.excerpt.clone(),
            source,
        })
    }

    /// The body as JSON, null when there is none.
    pub fn json_or_null(&self) -> Result<Value, CentralError> {
        if self.is_empty() { Ok(Value::Null) } else { self.json() }
    }

    /// An error about the shape of this answer.
    pub(super) fn wrong_shape(&self, what: impl fmt::Display) -> CentralError {
        CentralError::WrongShape { place: self.place.clone(), what: what.to_string() }
    }
}

/// A failed attempt.
struct Failure {
    error: CentralError,
    again: Again,
    floor: Option<Duration>,
}

/// One server.
pub struct Http {
    server: SourceName,
    base: Url,
    client: Client,
    secrets: Vec<SecretString>,
    response_bytes_max: usize,
    attempts_max: u32,
    surroundings: Surroundings,
    rng: Mutex<StdRng>,
    skew_s: Mutex<Option<i64>>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("server", &self.server)
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl Http {
    /// Prepares a client; no connection is made. Errors are of class misconfigured.
    pub fn new(settings: HttpSettings, surroundings: Surroundings) -> Result<Self, CentralError> {
        init_tls();
        let client = client(&settings)?;
        Ok(Self {
            server: settings.server,
            base: settings.base,
            client,
            secrets: settings.secret_headers.into_iter().map(|(_, _, secret)| secret).collect(),
            response_bytes_max: settings.response_bytes_max,
            attempts_max: settings.attempts_max.max(1),
            rng: Mutex::new(StdRng::seed_from_u64(surroundings.jitter_seed)),
            surroundings,
            skew_s: Mutex::new(None),
        })
    }

    /// The source this client belongs to.
    pub fn server(&self) -> &SourceName {
        &self.server
    }

    /// Seconds that the server's clock is ahead of ours (negative: behind), from the last answer that told its time.
    pub fn clock_skew_s(&self) -> Option<i64> {
        *self.skew_s.lock().expect("no code panics while it holds this lock")
    }

    /// Sends a request until it succeeds or another attempt is of no use. `Ok` is always a status of 2xx.
    pub async fn send(&self, call: Call<'_>) -> Result<Answer, CentralError> {
        let url = self.join(&call)?;
        let mut waited = Duration::ZERO;
        let mut made = 0;
        loop {
            made += 1;
            let failure = match self.attempt(&call, &url, made).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => *failure,
            };
            if !failure.again.allows(call.repeat, made, call.attempts_max.unwrap_or(self.attempts_max)) {
                return Err(failure.error);
            }
            let wait = {
                let mut rng = self.rng.lock().expect("no code panics while it holds this lock");
                retry::wait(made, failure.floor, waited, &mut *rng)
            };
            let Some(wait) = wait else {
                return Err(failure.error);
            };
            tracing::debug!(source = %self.server, attempt = made, ?wait, error = %failure.error, "asking again");
            (self.surroundings.sleep)(wait).await;
            waited += wait;
        }
    }

    fn join(&self, call: &Call<'_>) -> Result<Url, CentralError> {
        let mut url = self.base.join(call.path).map_err(|e| CentralError::Settings {
            server: self.server.to_string(),
            what: format!("{:?} cannot be joined to the url ({e})", call.path),
        })?;
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        Ok(url)
    }

    async fn attempt(&self, call: &Call<'_>, url: &Url, made: u32) -> Result<Answer, Box<Failure>> {
        let place = place(&call.method, url);
        let mut request = self.client.request(call.method.clone(), url.clone());
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        if let Some(timeout) = call.timeout {
            request = request.timeout(timeout);
        }
        let mut response = request.send().await.map_err(|e| Box::new(transport(e, place.clone(), made)))?;
        let server_now = self.note_time(response.headers());
        let status = response.status();
        if !status.is_success() {
            // Only text for people: what cannot be read of it is left out.
            let mut body = Vec::new();
            while let Ok(Some(piece)) = response.chunk().await {
                body.extend_from_slice(&piece[..piece.len().min(ERROR_BYTES_MAX - body.len())]);
                if body.len() == ERROR_BYTES_MAX {
                    break;
                }
            }
            return Err(Box::new(self.refusal(status, response.headers(), &body, place, made, server_now)));
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => break,
                Ok(Some(piece)) if body.len() + piece.len() > self.response_bytes_max => {
                    let error = CentralError::Oversized { place, bytes_max: self.response_bytes_max };
                    return Err(Box::new(Failure { error, again: Again::Useless, floor: None }));
                }
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Err(e) => {
                    let error = CentralError::BrokenOff { place, attempts: made, source: e.without_url() };
                    return Err(Box::new(Failure { error, again: Again::MaybeDone, floor: None }));
                }
            }
        }
        Ok(Answer {
            place,
            status: status.as_u16(),
            attempts: made,
            excerpt: self.excerpt(&body[..body.len().min(ERROR_BYTES_MAX)]),
            headers: std::mem::take(response.headers_mut()),
            body,
        })
    }

    /// Compares the server's clock with ours and gives the server's time, ours where it told none.
    fn note_time(&self, headers: &HeaderMap) -> Epoch {
        let ours = (self.surroundings.clock)();
        // An answer from a cache carries the time at which it was made.
        let cached = headers.get("age").is_some_and(|age| age != "0");
        let told = headers.get("date").and_then(|date| date.to_str().ok()).and_then(retry::http_date);
        match told {
            Some(theirs) if !cached => {
                *self.skew_s.lock().expect("no code panics while it holds this lock") =
                    Some(theirs.since(ours));
                theirs
            }
            _ => ours,
        }
    }

    fn excerpt(&self, body: &[u8]) -> String {
        let secrets: Vec<&str> = self.secrets.iter().map(|secret| secret.expose_secret()).collect();
        excerpt(body, &secrets)
    }

    fn without_secrets(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body).into_owned();
        self.secrets.iter().fold(text, |text, secret| text.replace(secret.expose_secret(), "[hidden]"))
    }

    fn refusal(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        place: Place,
        attempts: u32,
        server_now: Epoch,
    ) -> Failure {
        let excerpt = self.excerpt(body);
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let retry_after = text("retry-after").and_then(|text| retry::retry_after(text, server_now));
        let from_api = serde_json::from_slice::<Value>(body).is_ok();
        let code = status.as_u16();
        let (error, again) = match code {
            401 => (CentralError::Unauthorised { place, excerpt }, Again::Useless),
            403 => (CentralError::Forbidden { place, excerpt }, Again::Useless),
            404 | 405 if !from_api => {
                (CentralError::WrongAddress { place, status: code, excerpt }, Again::Useless)
            }
            300..=399 => {
                let location = self.excerpt(text("location").map(bare).unwrap_or_default().as_bytes());
                (CentralError::Redirected { place, status: code, location }, Again::Useless)
            }
            408 | 425 | 429 | 500 | 502..=599 => {
                let again = match code {
                    408 | 425 | 429 => Again::Harmless,
                    502..=504 => Again::MaybeDone,
                    500 => Again::MaybeDoneOnce,
                    _ => Again::Useless,
                };
                (CentralError::Busy { place, status: code, attempts, retry_after, excerpt }, again)
            }
            _ => {
                let complaints = serde_json::from_str(&self.without_secrets(body)).ok();
                let error = CentralError::Refused { place, status: code, attempts, excerpt, complaints };
                (error, Again::Useless)
            }
        };
        Failure { error, again, floor: retry_after }
    }
}

/// An address without user, password, query and fragment.
fn bare(address: &str) -> String {
    match Url::parse(address) {
        Ok(mut url) => {
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Err(_) => address.split(['?', '#']).next().unwrap_or_default().to_owned(),
    }
}

fn place(method: &Method, url: &Url) -> Place {
    Place(format!("{method} {url}").chars().take(PLACE_CHARS_MAX).collect())
}

/// No answer: a certificate is for a person to mend, all else may pass.
fn transport(error: reqwest::Error, place: Place, attempts: u32) -> Failure {
    let error = error.without_url();
    if certificate_refused(&error) {
        return Failure {
            error: CentralError::Certificate { place, source: error },
            again: Again::Useless,
            floor: None,
        };
    }
    let again = if error.is_connect() { Again::Harmless } else { Again::MaybeDone };
    Failure { error: CentralError::Unreachable { place, attempts, source: error }, again, floor: None }
}

/// Whether the chain of causes holds a refused certificate. `io::Error` hides its own inner error from `source`.
fn certificate_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        if let Some(rustls::Error::InvalidCertificate(_)) = cause.downcast_ref() {
            return true;
        }
        if let Some(inner) = inner {
            let inner: &(dyn std::error::Error + 'static) = inner;
            if certificate_refused(inner) {
                return true;
            }
        }
        next = cause.source();
    }
    false
}

/// Reads a base address: http or https with a host, no user, password, query or fragment. The path ends with `/`.
pub(super) fn base_url(server: &SourceName, text: &str) -> Result<Url, CentralError> {
    let wrong = |what: &str| CentralError::Settings { server: server.to_string(), what: what.to_owned() };
    let mut url = Url::parse(text.trim())
        .map_err(|e| wrong(&format!("url is not an address such as https://waldur.example.org ({e})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("url must begin with https:// (or http:// on a private network)"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("url holds a user or password; secrets belong in the token file"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("url holds ? or #; give the address of the server only"));
    }
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// The API's base: the address with exactly one `api`, such as `/api/`, at its end.
pub(super) fn api_base(server: &SourceName, text: &str, api: &str) -> Result<Url, CentralError> {
    let mut url = base_url(server, text)?;
    if !url.path().ends_with(api) {
        let path = format!("{}{}", url.path(), api.trim_start_matches('/'));
        url.set_path(&path);
    }
    Ok(url)
}

/// An id that may stand in a path: nothing in it can lead elsewhere. `what` says what it should be.
pub(super) fn segment<'a>(what: &str, id: &'a str, length_max: usize) -> Result<&'a str, String> {
    let fits = !id.is_empty()
        && id.len() <= length_max
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let shown: String = id.chars().take(64).collect();
    if fits { Ok(id) } else { Err(format!("{shown:?} is not {what}")) }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn client(settings: &HttpSettings) -> Result<Client, CentralError> {
    let server = settings.server.to_string();
    let certificates = match &settings.ca_file {
        None => Vec::new(),
        Some(path) => ca_certificates(path, &server)?,
    };
    let headers = headers(settings)?;
    let with_limits = || -> Result<ClientBuilder, CentralError> {
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers.clone())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .gzip(true)
            .pool_idle_timeout(IDLE_MAX)
            .timeout(settings.timeout)
            .connect_timeout(settings.timeout.min(CONNECT_TIMEOUT));
        if is_loopback(&settings.base) {
            return Ok(builder.no_proxy());
        }
        let Some(proxy) = &settings.proxy else { return Ok(builder) };
        let proxy = Proxy::all(proxy.clone()).map_err(|_| CentralError::Settings {
            server: server.clone(),
            what: "proxy is not an address such as http://proxy.example.org:3128".to_owned(),
        })?;
        Ok(builder.proxy(proxy.no_proxy(NoProxy::from_string(LOOPBACK))))
    };
    match with_limits()?.tls_certs_merge(certificates).build() {
        Ok(client) => Ok(client),
        // A host without CA certificates: reqwest 0.13 then refuses to build even where TLS is not wanted. With an
        // empty list of our own it does not look at the host's.
        Err(_) if settings.base.scheme() == "http" => with_limits()?
            .tls_certs_only(Vec::new())
            .build()
            .map_err(|source| CentralError::Tls { server, source }),
        Err(source) => Err(CentralError::Tls { server, source }),
    }
}

fn ca_certificates(path: &std::path::Path, server: &str) -> Result<Vec<Certificate>, CentralError> {
    let wrong = |what: String| CentralError::Settings {
        server: server.to_owned(),
        what: format!("ca_file {} {what}", path.display()),
    };
    let pem = std::fs::read(path).map_err(|e| wrong(format!("cannot be read ({e})")))?;
    let found =
        Certificate::from_pem_bundle(&pem).map_err(|_| wrong("holds an unreadable certificate".into()))?;
    if found.is_empty() {
        return Err(wrong("holds no certificate in PEM form".into()));
    }
    Ok(found)
}

fn headers(settings: &HttpSettings) -> Result<HeaderMap, CentralError> {
    let wrong = |name: &str| CentralError::Settings {
        server: settings.server.to_string(),
        what: format!(
            "the value for the header {name} is empty or holds characters that a header cannot (a line break?)"
        ),
    };
    let mut headers = HeaderMap::new();
    headers.insert("accept", HeaderValue::from_static("application/json"));
    for (name, text) in &settings.headers {
        let value = HeaderValue::from_str(text).map_err(|_| wrong(name))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    for (name, before, secret) in &settings.secret_headers {
        let secret = secret.expose_secret();
        if secret.is_empty() {
            return Err(wrong(name));
        }
        let mut value = HeaderValue::from_str(&format!("{before}{secret}")).map_err(|_| wrong(name))?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}
