//! An emulated Slurm: accounts, users, QOS, limits, jobs and a clock, behind programs that print what Slurm 22.05.8 prints.
//!
//! [`World`] is everything the emulated cluster knows; [`World::run`] runs one of `sacct`, `sacctmgr`, `sreport`,
//! `sshare`, `scontrol` and `sbatch` on it. [`EmulatedSlurm`] shares one world between threads and, in a file, between
//! processes. Nothing here is shared with the code that talks to a real Slurm, so that their mistakes cannot cancel out.
//!
//! Not emulated: federations, reservations, steps beyond the batch step, wckeys, JSON output, usage decay, associations
//! of other clusters, capacity of nodes (every job that policy lets start, starts).

mod billing;
mod call;
mod clock;
mod configuration;
mod fault;
mod file;
mod getopt;
#[cfg(test)]
mod golden;
mod job;
mod limits;
mod names;
mod passage;
mod policy;
mod sacct;
mod sacctmgr;
mod sbatch;
#[cfg(test)]
mod scenario;
mod scontrol;
mod shared;
mod shares;
mod sreport;
mod sshare;
mod table;
mod terminal;
mod times;
mod tree;
mod tres;
mod usage;
mod world;

use call::Call;
use std::collections::BTreeMap;

pub use clock::Clock;
pub use fault::{Effect, Fault};
pub use file::WorldFileError;
pub use job::{ArrayPart, Job, JobState, Suspension, TimeLimit};
pub use limits::{Count, Limits, PerTres};
pub use shared::{EmulatedSlurm, SharedWorldError};
pub use terminal::Output;
pub use tres::{Amounts, Tres, TresTable};
pub use world::{Account, AdminLevel, Association, Partition, Qos, SHARES_OF_PARENT, Services, User, World};

impl World {
    /// Runs an emulated program (its bare name) with these arguments and this environment, as the acting user.
    ///
    /// A planted fault that fits the run has its effect. An unknown program answers as a shell would, with status 127.
    pub fn run(&mut self, program: &str, args: &[String], env: &BTreeMap<String, String>) -> Output {
        let effect = fault::take(&mut self.faults, program, args);
        if let Some(output) = effect.as_ref().and_then(fault::before) {
            return output;
        }
        self.let_time_pass();
        let call = Call::new(self, program, args, env);
        let output = match program {
            "sacct" => sacct::run(self, &call),
            "sacctmgr" => sacctmgr::run(self, &call),
            "sbatch" => sbatch::run(self, &call),
            "scontrol" => scontrol::run(self, &call),
            "sreport" => sreport::run(self, &call),
            "sshare" => sshare::run(self, &call),
            _ => Output {
                stdout: Vec::new(),
                stderr: format!("{program}: command not found\n").into_bytes(),
                status: 127,
            },
        };
        self.let_time_pass();
        match effect {
            Some(effect) => fault::after(&effect, output),
            None => output,
        }
    }
}
