//! One run of an emulated program: who asks, with which words, where and when.

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

    /// What the program says about something that the real one knows and this one does not.
    pub(super) fn not_emulated(&self, what: &str) -> String {
        format!("{}: error: {what} is not emulated\n", self.program)
    }
}
