//! One run of an emulated program: who asks, with which words, where and when.

use super::configuration;
use super::times::{self, TimeStyle};
use super::world::World;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// The circumstances of a run.
pub(super) struct Call<'a> {
    /// Bare name of the program.
    pub(super) program: &'a str,
    /// Arguments after the name.
    pub(super) args: &'a [String],
    /// Environment.
    pub(super) env: &'a BTreeMap<String, String>,
    /// Zone of local times.
    pub(super) zone: TimeZone,
    /// Second of the epoch at which it runs.
    pub(super) now: i64,
}

impl<'a> Call<'a> {
    /// A run of `program` on a world.
    pub(super) fn new(
        world: &World,
        program: &'a str,
        args: &'a [String],
        env: &'a BTreeMap<String, String>,
    ) -> Call<'a> {
        Call { program, args, env, zone: times::zone_of(env, &world.time_zone), now: world.now() }
    }

    /// How it prints times, and its complaint about the environment.
    pub(super) fn time_style(&self) -> (TimeStyle, Option<String>) {
        TimeStyle::of(self.env, self.zone.clone(), self.now)
    }

    /// `sacct: error: ...`
    pub(super) fn error(&self, text: &str) -> String {
        format!("{}: error: {text}\n", self.program)
    }

    /// `sacct: fatal: ...`
    pub(super) fn fatal(&self, text: &str) -> String {
        format!("{}: fatal: {text}\n", self.program)
    }

    /// What the program says when slurmdbd does not answer, before its own last line.
    pub(super) fn no_database(&self, world: &World) -> String {
        let port = configuration::value(world, "AccountingStoragePort");
        let host = configuration::value(world, "AccountingStorageHost");
        let first = self.error(&format!(
            "slurm_persist_conn_open_without_init: failed to open persistent connection to host:{host}:{port}: \
             Connection refused"
        ));
        first + &self.no_database_again()
    }

    /// What it says when it tries once more.
    pub(super) fn no_database_again(&self) -> String {
        self.error("Sending PersistInit msg: Connection refused")
    }

    /// What the program says about something that the real one knows and this one does not.
    pub(super) fn not_emulated(&self, what: &str) -> String {
        format!("{}: error: {what} is not emulated\n", self.program)
    }
}
