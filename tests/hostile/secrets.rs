//! Secrets and what is shown: no token or key in anything that is printed, logged or stored, and nothing on a terminal
//! but text.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::raw::{Raw, Said};
use crate::site::{Installation, KEY, TOKEN, portal_of_today};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every file below a directory, by bytes.
fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            found.push((path.display().to_string(), std::fs::read(&path).expect("a file")));
        }
    }
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// Verbs that print, on a site with something to print.
const VERBS: [&[&str]; 12] = [
    &["--evaluate-now"],
    &["--evaluate-now", "--json", "--deep"],
    &["--evaluate-now", "--dry-run"],
    &["check-config"],
    &["check-config", "--print"],
    &["check"],
    &["status"],
    &["status", "--json"],
    &["usage"],
    &["explain", "physics"],
    &["history"],
    &["history", "--json"],
];

fn assert_secret(site: &Installation, what: &str) {
    for args in VERBS {
        let said = said(&site.run(args));
        for secret in [TOKEN, KEY] {
            assert!(!said.contains(secret), "{what}: {args:?}: {said}");
        }
    }
    let mut found = Vec::new();
    files(&site.path("state"), &mut found);
    assert!(found.iter().any(|(name, _)| name.ends_with("state.db")), "there is a store: {found:?}");
    for (name, bytes) in found {
        for secret in [TOKEN, KEY] {
            assert!(!holds(&bytes, secret), "{what}: {name}");
        }
    }
}

/// Slurm's programs see neither in their arguments and environment.
fn watch_processes(site: &Installation) {
    for program in ["sacct", "sacctmgr", "sreport", "sshare", "scontrol"] {
        let log = site.path("seen");
        site.program(program, &format!("{{ echo \"$0 $*\"; /usr/bin/env; }} >> {}", log.display()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_printed_logged_stored_or_given_to_a_program() {
    let portal = portal_of_today().await;
    let site = Installation::at(&portal.url);
    watch_processes(&site);
    let site = tokio::task::spawn_blocking(move || {
        assert_secret(&site, "all is well");
        site
    });
    let site = site.await.expect("no secret");
    let seen = std::fs::read(site.path("seen")).expect("programs ran");
    for secret in [TOKEN, KEY] {
        assert!(!holds(&seen, secret));
    }
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("sacct ") && !text.contains("CREDENTIALS_DIRECTORY"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_echoes_the_secrets_does_not_bring_them_out() {
    for status in [200, 400, 401, 403, 404, 500, 302] {
        let raw = Raw::start(move |target, _| {
            let theirs = if target.contains("/amie/") { KEY } else { TOKEN };
            Said { status, ..Said::json(json!({"detail": format!("{theirs} is not known")}).to_string()) }
        })
        .await;
        let url = raw.url.clone();
        let checked = tokio::task::spawn_blocking(move || {
            assert_secret(&Installation::at(&url), &format!("status {status}"))
        });
        checked.await.expect("no secret");
    }
}

#[test]
fn a_secret_that_others_may_read_is_refused_by_its_path_and_not_shown() {
    use std::os::unix::fs::PermissionsExt;
    // It is refused before any server is asked.
    let site = Installation::at("http://127.0.0.1:9");
    std::fs::set_permissions(site.path("token"), std::fs::Permissions::from_mode(0o644)).expect("its mode");
    let output = site.run(&["--evaluate-now"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("chmod") && said.contains("/token") && !said.contains(TOKEN), "{said}");
}

/// Text that would do something to a terminal, or make lines seem to be others'.
const ESCAPES: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nroot  blocked\u{9b}31m\u{202e}desrever\u{200b}";

fn policy() -> Value {
    json!({
        "uuid": "b7d1f0aa2c5e4d7b9e135a0c8f2e6d41", "scope_uuid": "5e1f0a3c9b7d4e2f8a6c1d0b3e5f7a90",
        "scope_name": format!("name {ESCAPES}"), "period": 2,
        "actions": format!("request_slurm_resource_pausing,{ESCAPES}"),
        "tres_billing_weights": {"CPU": 1}, "warnings": [format!("warning {ESCAPES}")],
    })
}

fn resource(backend_id: &str, uuid: &str) -> Value {
    json!({
        "uuid": uuid, "name": format!("resource {ESCAPES}"), "backend_id": backend_id, "state": "OK",
        "limits": {"cpu": 100}, "offering_uuid": "5e1f0a3c9b7d4e2f8a6c1d0b3e5f7a90",
    })
}

fn command(uuid: &str, kind: &str, parameters: Value) -> Value {
    json!({
        "uuid": uuid, "command_type": kind, "description": format!("description {ESCAPES}"), "parameters": parameters,
        "executed_at": jiff::Timestamp::now().to_string(),
    })
}

fn hostile_texts(target: &str) -> Said {
    let rows = match target {
        _ if target.starts_with("POST") => {
            return Said { status: 400, ..Said::json(json!({"detail": ESCAPES}).to_string()) };
        }
        _ if target.contains("command-history") => json!([
            command("00000000000000000000000000000001", ESCAPES, json!({"account": ESCAPES})),
            command("00000000000000000000000000000002", "qos", json!({"account": "physics", "qos": ESCAPES})),
            command(
                "00000000000000000000000000000003",
                "fairshare",
                json!({"account": "physics", "fairshare": 3})
            ),
            command(ESCAPES, "fairshare", json!({"account": "chemistry", "fairshare": 3})),
        ]),
        _ if target.contains("usage-policies") => json!([policy(), {"uuid": ESCAPES, "period": ESCAPES}]),
        _ if target.contains("provider-resources") => json!([
            resource("physics", "00000000000000000000000000000004"),
            resource(ESCAPES, "00000000000000000000000000000005"),
            resource("chemistry", ESCAPES),
        ]),
        _ => json!([]),
    };
    Said::json(rows.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_text_reaches_the_terminal() {
    let raw = Raw::start(|target, _| hostile_texts(target)).await;
    let url = raw.url.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let site = Installation::at(&url);
        // Slurm complains in colours, too.
        site.program(
            "scontrol",
            "printf 'scontrol: error: \\033[31m\\r\\033]0;owned\\007\\342\\200\\256' >&2",
        );
        let mut shown = String::new();
        for args in VERBS {
            let said = said(&site.run(args));
            let odd = said.chars().find(|c| {
                (c.is_control() && *c != '\n')
                    || ('\u{202a}'..='\u{202e}').contains(c)
                    || ('\u{2066}'..='\u{2069}').contains(c)
            });
            assert_eq!(odd, None, "{args:?}: {said:?}");
            assert!(!said.lines().any(|line| line.starts_with("root  blocked")), "{args:?}: {said}");
            shown.push_str(&said);
        }
        assert!(shown.contains("description") && shown.contains("warning"), "they are shown: {shown}");
    });
    checked.await.expect("only text");
}
