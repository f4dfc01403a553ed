//! The shipped unit and the defaults of the configuration agree with each other.

use std::time::Duration;

use super::super::{CONFIG_PATH, SecretSource};
use super::{EXAMPLE, REQUIRED, good};

const UNIT: &str = include_str!("../../../systemd/slurm-site-agent.service");

/// All values of a setting of the unit that are in effect.
fn settings(name: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

fn duration(name: &str) -> Duration {
    let [value] = settings(name)[..] else {
        panic!("{name}= is not there once");
    };
    humantime::parse_duration(value).unwrap()
}

#[test]
fn systemd_waits_longer_than_the_agent_drains() {
    assert!(duration("TimeoutStopSec") > good(REQUIRED).limits.drain + good(REQUIRED).limits.drain / 2);
}

#[test]
fn the_watchdog_waits_longer_than_a_poll_and_the_longest_steps_of_a_cycle() {
    let config = good(REQUIRED);
    let steps = config.cluster.timeout * 10 + config.sources[0].timeout * config.sources[0].attempts_max;
    assert!(duration("WatchdogSec") > config.poll_interval() + steps);
}

#[test]
fn the_store_lies_in_the_directory_that_the_unit_owns() {
    let [directory] = settings("StateDirectory")[..] else {
        panic!("StateDirectory= is not there once");
    };
    let path = good(REQUIRED).store.path;
    assert_eq!(path.parent().unwrap(), std::path::Path::new("/var/lib").join(directory));
}

#[test]
fn the_unit_reads_the_default_configuration_and_loads_the_examples_credential() {
    let [command] = settings("ExecStart")[..] else {
        panic!("ExecStart= is not there once");
    };
    assert!(command.ends_with(&format!(" --config {CONFIG_PATH}")), "{command}");
    let SecretSource::Credential(name) = &good(EXAMPLE).sources[0].token else {
        panic!("the example names a credential");
    };
    let loaded = settings("LoadCredential");
    assert!(loaded.iter().any(|entry| entry.split_once(':').is_some_and(|(id, _)| id == name)), "{loaded:?}");
}
