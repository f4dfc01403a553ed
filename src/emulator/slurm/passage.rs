//! The passage of time: jobs that were submitted here end when they are done or at their limit, and waiting ones start
//! as soon as policy lets them.
//!
//! Jobs of seed files and of [`World::add_job`] stay as they are unless [`Job::runs_for_s`] is set.

use super::job::{Job, JobState, TimeLimit};
use super::policy::Ledger;
use super::world::World;

impl Job {
    /// When it ends by itself.
    fn planned_end(&self, now: i64) -> Option<i64> {
        let own = self.runs_for_s?;
        if self.state != JobState::Running || self.start <= 0 || self.end != 0 {
            return None;
        }
        let seconds = match self.time_limit {
            TimeLimit::Minutes(minutes) => own.min(i64::from(minutes) * 60),
            TimeLimit::Unlimited | TimeLimit::Partition => own,
        };
        Some(self.start + seconds + self.suspended_s(now))
    }

    fn waits(&self) -> bool {
        self.runs_for_s.is_some() && self.state == JobState::Pending && self.end == 0
    }
}

impl World {
    /// Does what happened between the last time and now. While the controller is down nothing starts, and what ended in
    /// the meantime is known once it is back.
    pub(super) fn let_time_pass(&mut self) {
        let now = self.now();
        let live: Vec<usize> = (0..self.jobs.len())
            .filter(|at| self.jobs[*at].runs_for_s.is_some() && self.jobs[*at].end == 0)
            .collect();
        if live.is_empty() {
            return;
        }
        if !self.services.slurmctld {
            self.lived_until = now;
            return;
        }
        while let Some(next) = self.next_event(&live, now) {
            self.end_jobs(&live, next);
            self.start_jobs(&live, next);
            self.lived_until = next;
        }
        self.end_jobs(&live, now);
        self.start_jobs(&live, now);
        self.lived_until = now;
    }

    /// The next instant after the last one, and not after now, at which a job ends or may begin.
    fn next_event(&self, live: &[usize], now: i64) -> Option<i64> {
        live.iter()
            .filter_map(|at| {
                let job = &self.jobs[*at];
                if job.waits() { Some(job.eligible) } else { job.planned_end(now) }
            })
            .filter(|event| (self.lived_until + 1..=now).contains(event))
            .min()
    }

    fn end_jobs(&mut self, live: &[usize], until: i64) {
        for at in live {
            let job = &mut self.jobs[*at];
            let Some(end) = job.planned_end(until).filter(|end| *end <= until) else { continue };
            let done = job.start + job.runs_for_s.unwrap_or(0) + job.suspended_s(until) <= end;
            job.state = if done { JobState::Completed } else { JobState::Timeout };
            job.end = end;
        }
    }

    fn start_jobs(&mut self, live: &[usize], at: i64) {
        if !live.iter().any(|place| self.jobs[*place].waits()) {
            return;
        }
        let mut ledger = Ledger::new(self, at);
        let mut starting = Vec::new();
        for place in live.iter().copied().filter(|place| self.jobs[*place].waits()) {
            let job = &self.jobs[place];
            if ledger.obstacle(job).is_none() {
                let running = self.started(job, at);
                ledger.begin(&running);
                starting.push((place, running));
            }
        }
        for (place, running) in starting {
            self.jobs[place] = running;
        }
    }

    fn started(&self, job: &Job, at: i64) -> Job {
        let mut running = job.clone();
        running.state = JobState::Running;
        running.start = at;
        running.allocated.clone_from(&job.requested);
        running.nodes = self
            .partitions
            .iter()
            .find(|partition| partition.name == job.partition)
            .map(|partition| partition.nodes.clone())
            .unwrap_or_default();
        running.flags = vec!["SchedMain".to_owned(), "StartRecieved".to_owned()];
        running
    }
}
