//! A site as an operator sets it up, in a directory: configuration, secrets, and Slurm's programs as small scripts in front
//! of the emulated Slurm, so that the real binary runs real processes. The server is the test's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::bench::shipped;
use crate::support::{COMPONENTS, Portal};

const PROGRAM: &str = env!("CARGO_BIN_EXE_slurm-site-agent");
/// The portal's token, found nowhere but in its file and in the portal.
pub const TOKEN: &str = "token-5up3r-s3cr3t-a77f";
/// The key for AMIE.
pub const KEY: &str = "key-t0p-s3cr3t-9c31";

/// The shipped world at the time of this host, with jobs of the last hours.
fn slurm_of_today() -> Value {
    let mut slurm = shipped("slurm.json");
    slurm["clock"] = json!({"offset": 0});
    let job = |account: &str, user: &str, start: &str, end: &str| {
        json!({
            "account": account, "user": user, "state": "COMPLETED", "start": start, "end": end, "submit": start,
            "allocated": "cpu=40,mem=160G,node=1,gres/gpu=4,billing=112",
        })
    };
    slurm["jobs"] = json!([
        job("physics", "alice", "now-4h", "now-3h"),
        job("chemistry", "bob", "now-3h", "now-1h"),
        job("geology", "alice", "now-2h", "now-30m"),
    ]);
    slurm
}

/// The embedded server with the shipped data at the time of this host; it knows both secrets.
pub async fn portal_of_today() -> Portal {
    let mut central = shipped("central.json");
    central["clock"] = json!({"offset_s": 0});
    central["commands"] = json!([]);
    central["users"][0]["token"] = json!(TOKEN);
    central["amie"]["sites"][0]["api_key"] = json!(KEY);
    Portal::start(serde_json::from_value(central).expect("a server's state")).await
}

/// The site's directory.
pub struct Installation {
    dir: tempfile::TempDir,
}

impl Installation {
    /// With this server.
    pub fn at(url: &str) -> Installation {
        let site = Installation { dir: tempfile::tempdir().expect("a folder") };
        fs::create_dir(site.path("world")).expect("a folder");
        fs::write(site.path("world/slurm.json"), slurm_of_today().to_string()).expect("a world");
        for (name, secret) in [("token", TOKEN), ("key", KEY)] {
            fs::write(site.path(name), secret).expect("a secret");
            mode(&site.path(name), 0o600);
        }
        fs::create_dir(site.path("bin")).expect("a folder");
        for program in ["sacct", "sacctmgr", "sreport", "sshare", "scontrol"] {
            site.program(program, "");
        }
        site.configure(url.trim_end_matches('/'));
        site
    }

    /// A path in the site's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A Slurm program that does `first` (shell) and then what the emulated one does.
    pub fn program(&self, name: &str, first: &str) {
        let world = self.path("world");
        let run = format!("exec {PROGRAM} --emulator-state {} emulate {name} \"$@\"", world.display());
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{first}\n{run}\n")).expect("an executable");
        mode(&path, 0o755);
    }

    fn configure(&self, url: &str) {
        let dir = self.dir.path().display();
        let text = format!(
            r#"
[cluster]
name = "emulated"
bin_dir = "{dir}/bin"
[[source]]
name = "portal"
kind = "waldur-policy"
url = "{url}/api/"
token_file = "{dir}/token"
offering = "5e1f0a3c9b7d4e2f8a6c1d0b3e5f7a90"
poll_interval = "5h"
attempts_max = 1
{COMPONENTS}
[store]
path = "{dir}/state/state.db"
[schedule]
deep_scan = "0 0 29 2 *"
audit = "0 0 29 2 *"
report = "0 0 29 2 *"
[log]
level = "trace"
[amie]
url = "{url}/amie/api/v1/"
site = "EMULATED"
key_file = "{dir}/key"
resource = "cluster.emulated.example.org"
[amie.projects]
physics = "TG-PHY260001"
"#
        );
        fs::write(self.path("config.toml"), text).expect("a configuration");
    }

    /// Runs the program with the site's configuration to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.path("config.toml")).args(args);
        command.env("TZ", "UTC").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command.output().expect("the program starts")
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}
