//! The server at its socket, with a client that knows none of its code.

mod amie;
mod datarobot;
mod faults;
mod file;
mod nomad;
mod policies;
mod quotas;
mod waldur;

use std::sync::Once;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{CentralHandle, CentralServer, CentralServerError, CentralState};

/// A Sunday in the last quarter.
const NOW: &str = "2026-11-22T10:00:00Z";

/// A seed as an operator would write it.
fn seed() -> CentralState {
    let seed = json!({
        "clock": {"fixed": NOW},
        "users": [
            {"username": "agent", "token": "staff-token", "role": "staff", "full_name": "Site Agent"},
            {"username": "olga", "token": "owner-token", "role": "owner"},
            {"username": "eve", "token": "user-token"}
        ],
        "policies": [{"period": 3, "created_by": "agent"}],
        "resources": [
            {"name": "bio42", "limits": {"cpu": 1000, "mem": 500}},
            {"name": "chem7", "limits": {"cpu": 300}},
            {"name": "gone", "state": "Terminated", "limits": {"cpu": 1}}
        ]
    });
    serde_json::from_value(seed).unwrap()
}

/// A served server and a client of it.
struct Site {
    base: String,
    handle: CentralHandle,
    client: reqwest::Client,
    stop: CancellationToken,
    served: JoinHandle<Result<(), CentralServerError>>,
}

/// What came back.
struct Got {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl Site {
    async fn start(server: CentralServer) -> Self {
        static PROVIDER: Once = Once::new();
        // Another test of this process may have been first: `cargo test` runs all of them in one.
        PROVIDER.call_once(|| {
            drop(rustls::crypto::ring::default_provider().install_default());
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let handle = server.handle();
        let served = tokio::spawn(server.serve(listener, stop.clone()));
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .unwrap();
        Self { base, handle, client, stop, served }
    }

    async fn with(seed: CentralState) -> Self {
        Self::start(CentralServer::in_memory(seed)).await
    }

    fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        if token.is_empty() { request } else { request.header("authorization", format!("Token {token}")) }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Got {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        Got { status, headers, text: response.text().await.unwrap() }
    }

    async fn get(&self, path: &str) -> Got {
        self.send(self.request(Method::GET, path, "staff-token")).await
    }

    async fn get_as(&self, token: &str, path: &str) -> Got {
        self.send(self.request(Method::GET, path, token)).await
    }

    async fn post(&self, path: &str, body: Value) -> Got {
        self.send_as("staff-token", Method::POST, path, body).await
    }

    async fn send_as(&self, token: &str, method: Method, path: &str, body: Value) -> Got {
        self.send(self.request(method, path, token).json(&body)).await
    }

    /// The id of a resource as the wire has it.
    fn resource(&self, account: &str) -> String {
        self.handle.with_state(|state| state.resource_of_account(account).unwrap().uuid.simple().to_string())
    }

    /// The id of the only policy.
    fn policy(&self) -> String {
        self.handle.with_state(|state| state.policies[0].uuid.simple().to_string())
    }

    fn policy_path(&self, rest: &str) -> String {
        format!("{POLICIES}{}/{rest}", self.policy())
    }

    fn set_clock(&self, instant: &str) {
        let instant = instant.parse().unwrap();
        self.handle.with_state(|state| state.clock = super::Clock::Fixed(instant));
    }

    async fn stop(self) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
    }
}

const POLICIES: &str = "/api/marketplace-slurm-periodic-usage-policies/";
const RESOURCES: &str = "/api/marketplace-provider-resources/";
const USAGES: &str = "/api/marketplace-component-usages/";
