//! `config/site-agent.toml` is complete and true: every key with its default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::super::{SecretSource, default_components, emulator_defaults, parse};
use super::{EXAMPLE, REQUIRED, good};

/// Tables whose keys are the site's own; their entries are examples, not defaults.
const SITES_OWN: [&str; 5] = ["components", "amie.projects", "amie.users", "amie.resources", "amie.patterns"];

/// One `key = value` line of the example with its table.
struct Line {
    table: String,
    key: String,
    number: usize,
    commented: bool,
}

/// The example with every key and header in effect, and its lines.
fn uncommented() -> (Vec<String>, Vec<Line>) {
    let (mut text, mut lines, mut table) = (Vec::new(), Vec::new(), String::new());
    for (number, written) in EXAMPLE.lines().enumerate() {
        let active = match written.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
            _ => written,
        };
        if active.starts_with('[') {
            table = active.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = active.split_once(" = ").filter(|_| !active.starts_with('#')) {
            let commented = written.starts_with('#');
            lines.push(Line { table: table.clone(), key: key.to_owned(), number, commented });
        }
        text.push(active.to_owned());
    }
    (text, lines)
}

fn without(text: &[String], number: usize) -> String {
    let kept = text.iter().enumerate().filter(|(n, _)| *n != number).map(|(_, line)| line.as_str());
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_as_shipped_is_the_required_keys_and_nothing_but_defaults() {
    assert_eq!(good(EXAMPLE), good(REQUIRED));
}

#[test]
fn every_commented_key_of_the_example_shows_the_default() {
    let (text, lines) = uncommented();
    let whole = good(&text.join("\n"));
    assert!(whole.amie.is_some() && whole.allocations.len() == 1, "the optional sections are in effect");
    let mut required = BTreeSet::new();
    for line in lines.iter().filter(|line| !SITES_OWN.contains(&line.table.as_str())) {
        let name = format!("{}.{}", line.table, line.key);
        match parse(&without(&text, line.number), "test.toml") {
            Ok(config) => {
                assert!(line.commented, "{name} has a default and should be commented out");
                assert_eq!(config, whole, "{name} does not show its default");
            }
            Err(errors) => {
                assert_eq!(errors.problems.len(), 1, "{name}: {errors}");
                assert!(errors.problems[0].reason.contains("missing"), "{name}: {errors}");
                required.insert(name);
            }
        }
    }
    let expected = [
        "allocation.account",
        "allocation.limits",
        "amie.key_credential",
        "amie.maintenance.from",
        "amie.maintenance.until",
        "amie.resource",
        "amie.site",
        "amie.storage.file",
        "amie.storage.format",
        "amie.storage.resource",
        "cluster.name",
        "quota.account",
        "quota.limit",
        "quota.rule",
        "source.accounts",
        "source.kind",
        "source.name",
        "source.offering",
        "source.resources",
        "source.token_credential",
        "source.url",
    ];
    assert_eq!(required.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn the_components_of_the_example_are_the_default_ones() {
    let (text, _) = uncommented();
    assert_eq!(good(&text.join("\n")).components, default_components());
    assert_eq!(good(REQUIRED).components, default_components());
}

/// An unknown key in every table makes the reader list the keys it knows there; the example must have them all.
#[test]
fn every_key_that_is_read_stands_in_the_example() {
    let (text, lines) = uncommented();
    let mut asked = String::from("zz_unknown = 1\n");
    for line in &text {
        let inline = line.starts_with("cpu = ") || line.starts_with("ladder = ");
        let line = if inline { line.replace("{ ", "{ zz_unknown = 1, ") } else { line.clone() };
        asked.push_str(&line);
        asked.push('\n');
        if line.starts_with('[') && !SITES_OWN.contains(&line.trim_matches(['[', ']'])) {
            asked.push_str("zz_unknown = 1\n");
        }
    }
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for problem in parse(&asked, "test.toml").unwrap_err().problems {
        assert!(problem.reason.contains("unknown"), "{problem}");
        let table = problem.key.trim_end_matches("zz_unknown").trim_end_matches('.').replace("[0]", "");
        let keys = problem.allowed.unwrap().split(", ").map(str::to_owned).collect();
        known.entry(table).or_insert(keys);
    }
    let tables: Vec<&str> = known.keys().map(String::as_str).collect();
    let expected = [
        "",
        "accounts",
        "allocation",
        "amie",
        "amie.charge",
        "amie.maintenance",
        "amie.storage",
        "cluster",
        "components.cpu",
        "limits",
        "log",
        "qos",
        "qos.ladder",
        "qos.ladder[1]",
        "quota",
        "reports",
        "schedule",
        "source",
        "source[1]",
        "source[2]",
        "source[3]",
        "store",
    ];
    assert_eq!(tables, expected, "every table was asked");
    let headers: BTreeSet<String> = text
        .iter()
        .filter(|line| line.starts_with('['))
        .map(|line| line.trim_matches(['[', ']']).into())
        .collect();
    for (table, keys) in known {
        for key in keys {
            let found = match table.as_str() {
                "" => headers.contains(&key),
                "components.cpu" | "qos.ladder" | "qos.ladder[1]" => {
                    text.iter().any(|line| line.contains("{ ") && line.contains(&format!("{key} = ")))
                }
                // Several entries of one name: the header is the same, the keys are looked for among all of them.
                _ if table.starts_with("source") => {
                    lines.iter().any(|line| line.table == "source" && line.key == key)
                }
                _ => {
                    lines.iter().any(|line| line.table == table && line.key == key)
                        || headers.contains(&format!("{table}.{key}"))
                }
            };
            assert!(found, "{table}.{key} is not in config/site-agent.toml");
        }
    }
}

#[test]
fn the_emulators_configuration_is_good_and_gets_its_directory_and_server() {
    let config = emulator_defaults(Path::new("/tmp/a \"dir\""), "http://127.0.0.1:4711").unwrap();
    assert_eq!(config.store.path, PathBuf::from("/tmp/a \"dir\"/state.db"));
    let kinds: Vec<&str> = config.sources.iter().map(|source| source.kind.as_str()).collect();
    assert_eq!(kinds, ["waldur-policy", "waldur-quota"]);
    for source in &config.sources {
        assert_eq!(source.url.as_str(), "http://127.0.0.1:4711/api/");
        assert_eq!(source.token, SecretSource::File("/tmp/a \"dir\"/central.token".into()));
    }
    let amie = config.amie.as_ref().unwrap();
    assert_eq!(amie.url.as_str(), "http://127.0.0.1:4711/amie/api/v1/");
    assert_eq!(amie.key, SecretSource::File("/tmp/a \"dir\"/amie.key".into()));
    assert_eq!(good(&config.to_toml()), config);
    assert!(emulator_defaults(Path::new("/tmp"), "not a url").unwrap_err().to_string().contains("not a url"));
}
