//! TLS: the site's own CA, a certificate nobody vouches for, a host without CA certificates.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Server, all_of, json, secret, source, surroundings};
use crate::central::http::base_url;
use crate::central::{Call, CentralError, Class, Http, HttpSettings, init_tls};

fn file(name: &str) -> PathBuf {
    PathBuf::from(format!("{}/fixtures/central/tls/{name}", env!("CARGO_MANIFEST_DIR")))
}

/// A TLS server on a thread of its own; it ends with the test process.
fn tls_server() -> String {
    tls_server_at("127.0.0.1:0")
}

fn tls_server_at(address: &str) -> String {
    init_tls();
    let chain = vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config =
        Arc::new(rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = std::net::TcpListener::bind(address).unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::Stream::new(&mut connection, &mut stream);
            let mut request = [0; 4096];
            // A client that does not trust us leaves during the handshake.
            if tls.read(&mut request).is_ok() {
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
                connection.send_close_notify();
                let _ = connection.complete_io(&mut stream);
            }
        }
    });
    url
}

fn settings(url: &str, ca_file: Option<PathBuf>) -> HttpSettings {
    HttpSettings {
        server: source(),
        base: base_url(&source(), url).unwrap(),
        secret_headers: vec![("authorization", "Token ", secret())],
        headers: Vec::new(),
        ca_file,
        proxy: None,
        timeout: Duration::from_secs(30),
        response_bytes_max: 10_000,
        attempts_max: 3,
    }
}

#[tokio::test]
async fn a_server_certified_by_the_sites_own_ca_is_accepted() {
    let http = Http::new(settings(&tls_server(), Some(file("ca.pem"))), surroundings().0).unwrap();
    assert_eq!(http.send(Call::get("", &[])).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_a_misconfiguration_and_not_an_outage() {
    // server.pem is a certificate, but not of the CA that signed the server's.
    let (surroundings, waits) = surroundings();
    let http = Http::new(settings(&tls_server(), Some(file("server.pem"))), surroundings);
    let error = match http {
        Ok(http) => http.send(Call::get("", &[])).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.class(), Class::Misconfigured, "{}", all_of(&error));
    assert_eq!(waits.lock().unwrap().len(), 0, "it is not asked again");
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused_and_not_asked_again() {
    // It is for localhost and 127.0.0.1, where this listens as well.
    let url = tls_server_at("127.0.0.2:0").replace("localhost", "127.0.0.2");
    let (surroundings, waits) = surroundings();
    let http = Http::new(settings(&url, Some(file("ca.pem"))), surroundings).unwrap();
    let error = http.send(Call::get("", &[])).await.unwrap_err();
    assert!(matches!(error, CentralError::Certificate { .. }), "{}", all_of(&error));
    assert_eq!(error.class(), Class::Misconfigured);
    assert_eq!(waits.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn without_the_sites_ca_its_server_is_refused() {
    if std::fs::metadata("/etc/ssl/certs/ca-certificates.crt").is_err() {
        eprintln!("SKIPPED: this host has no CA certificates; see the test for such hosts");
        return;
    }
    let http = Http::new(settings(&tls_server(), None), surroundings().0).unwrap();
    let error = http.send(Call::get("", &[])).await.unwrap_err();
    assert!(matches!(error, CentralError::Certificate { .. }), "{}", all_of(&error));
    assert!(error.to_string().contains("ca_file"), "{error}");
}

#[test]
fn a_ca_file_that_is_missing_or_holds_no_certificate_is_named() {
    for (name, reason) in [("absent.pem", "cannot be read"), ("README.md", "no certificate")] {
        let error =
            Http::new(settings("https://localhost:1", Some(file(name))), surroundings().0).unwrap_err();
        assert_eq!(error.class(), Class::Misconfigured);
        assert!(error.to_string().contains(reason) && error.to_string().contains(name), "{error}");
    }
}

const IN_CHILD: &str = "SLURM_SITE_AGENT_TEST_IN_CHILD";

/// Runs a test of this file in a process with another environment (it is read once per process). True in the parent,
/// when the child is done.
fn ran_in_child(test: &str, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os(IN_CHILD).is_some() {
        return false;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("central::tests::tls::{test}")])
        .env(IN_CHILD, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let told =
        format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && told.contains("1 passed"), "{told}");
    true
}

#[test]
fn a_proxy_of_the_environment_is_not_used_for_loopback() {
    // Nobody listens on port 1: a request through this proxy cannot succeed.
    let dead = "http://127.0.0.1:1";
    let environment = [("http_proxy", dead), ("HTTP_PROXY", dead), ("ALL_PROXY", dead), ("NO_PROXY", "")];
    if ran_in_child("a_proxy_of_the_environment_is_not_used_for_loopback", &environment) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start(|_, _| json(200, "", "{}")).await;
        let http = Http::new(settings(&server.url, None), surroundings().0).unwrap();
        assert_eq!(http.send(Call::get("", &[])).await.unwrap().status, 200);
        let far = Http::new(settings("http://waldur.invalid", None), surroundings().0).unwrap();
        let error = far.send(Call::get("", &[])).await.unwrap_err();
        assert!(
            all_of(&error).contains("127.0.0.1:1") || all_of(&error).contains("refused"),
            "{}",
            all_of(&error)
        );
    });
}

#[test]
fn a_host_without_ca_certificates_can_use_plain_http_and_a_ca_file() {
    let environment = [("SSL_CERT_FILE", "/nonexistent/ca.pem"), ("SSL_CERT_DIR", "/nonexistent")];
    if ran_in_child("a_host_without_ca_certificates_can_use_plain_http_and_a_ca_file", &environment) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let plain = Server::start(|_, _| json(200, "", "{}")).await;
        let http = Http::new(settings(&plain.url, None), surroundings().0).unwrap();
        assert_eq!(http.send(Call::get("", &[])).await.unwrap().status, 200);
        let http = Http::new(settings(&tls_server(), Some(file("ca.pem"))), surroundings().0).unwrap();
        assert_eq!(http.send(Call::get("", &[])).await.unwrap().status, 200);
        let error = Http::new(settings("https://localhost:1", None), surroundings().0).unwrap_err();
        assert!(matches!(error, CentralError::Tls { .. }), "{}", all_of(&error));
        assert!(error.to_string().contains("ca-certificates"), "{error}");
    });
}
