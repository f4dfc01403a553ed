//! Who may import whom, and which calls belong to which file. A breach names file and line.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms and what of the crate they may use besides themselves.
const MAY_USE: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("slurm", &["core"]),
    ("central", &["core"]),
    ("filesystem", &["core"]),
    ("store", &["core"]),
    ("config", &["core"]),
    ("emulator", &["core"]),
    ("agent", &["core", "slurm", "central", "filesystem", "store", "config"]),
    ("cli", &["core", "slurm", "central", "store", "config", "agent", "emulator"]),
];

/// Calls that only these files may make.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("Timestamp::now(", &["agent/clock.rs", "emulator/"], "time comes from agent::clock"),
    ("SystemTime::now(", &["agent/clock.rs", "emulator/", "store/lock.rs"], "time comes from agent::clock"),
    ("Zoned::now(", &["agent/clock.rs", "emulator/"], "time comes from agent::clock"),
    ("Command::new(", &["slurm/runner.rs"], "processes, the site's own too, are started by slurm::runner"),
    ("reqwest::", &["central/"], "HTTP is spoken by central"),
    ("rusqlite::", &["store/"], "SQL is spoken by store"),
    ("chrono::", &["agent/schedule.rs"], "chrono stays in agent::schedule"),
    ("println!", &["main.rs"], "cli::render prints"),
    ("unsafe ", &["agent/memory.rs"], "the one call that is not safe gives memory back"),
    (
        "std::env::var",
        &["cli/", "config/secret.rs", "agent/notify.rs", "agent/step.rs", "emulator/"],
        "the environment comes in as parameters",
    ),
];

/// What the pure room may not even name.
const NOT_IN_CORE: &[&str] =
    &["async ", "tokio", "tracing", "std::fs", "std::io", "std::net", "rand::", "serde_json"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("src is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Lines of code with their numbers: without comments, and without tests, which may use what they need.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("readable source");
    let lines = text.lines().enumerate();
    let before_tests =
        lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]" && line.trim() != "mod tests {");
    before_tests
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or("").to_owned()))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect()
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs") || path.ends_with("_tests.rs")
}

fn each(mut check: impl FnMut(&str, &str, usize, &str)) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&src) {
        let name = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
        if is_test(&name) {
            continue;
        }
        let room = name.split('/').next().unwrap_or("").to_owned();
        for (number, line) in code(&path) {
            check(&room, &name, number, &line);
        }
    }
}

#[test]
fn rooms_import_only_what_the_map_allows() {
    let mut breaches = Vec::new();
    let mut seen = 0;
    each(|room, name, number, line| {
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == room) else { return };
        for other in line.split("crate::").skip(1) {
            let used: String = other.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            seen += 1;
            let is_room = MAY_USE.iter().any(|(known, _)| *known == used);
            if is_room && used != room && !allowed.contains(&used.as_str()) {
                breaches.push(format!("src/{name}:{number}: {room} may not use {used}: {}", line.trim()));
            }
        }
    });
    assert!(seen > 100, "the test has to see the imports it judges");
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn calls_that_touch_the_world_stay_behind_their_doors() {
    let mut breaches = Vec::new();
    each(|_, name, number, line| {
        for (call, places, rule) in ONLY_IN {
            if line.contains(call) && !places.iter().any(|place| name.starts_with(place)) {
                breaches.push(format!("src/{name}:{number}: {rule}: {}", line.trim()));
            }
        }
    });
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let mut breaches = Vec::new();
    each(|room, name, number, line| {
        for word in NOT_IN_CORE {
            if room == "core" && line.contains(word) {
                breaches.push(format!("src/{name}:{number}: core may not know {word:?}: {}", line.trim()));
            }
        }
    });
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_edges_and_the_emulator_have_no_common_code() {
    each(|room, name, number, line| {
        if room == "emulator" {
            for edge in
                ["crate::slurm", "crate::central", "crate::filesystem", "crate::store", "crate::agent"]
            {
                assert!(!line.contains(edge), "src/{name}:{number}: the emulator may not use {edge}");
            }
        }
    });
}

#[test]
fn no_registry_and_no_path_of_a_machine_is_committed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = sources(&root.join("src"));
    texts.extend(["Cargo.toml", "README.md"].map(|name| root.join(name)));
    for path in texts {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for word in [
            concat!("/wo", "rk/"),
            concat!("crates", ".io"),
            concat!("pypi", ".org"),
            concat!("deb.debian", ".org"),
        ] {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}
