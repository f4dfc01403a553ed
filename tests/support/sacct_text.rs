//! Text as sacct prints it for the agent's question, of realistic shape: 2,000 users of 600 accounts, arrays, requeued jobs,
//! several shapes of TRES, some jobs that were suspended, cancelled before they started, or run. The same seed gives the same
//! jobs.

use std::fmt::Write;

/// 2025-11-01T00:00:00Z: the jobs of the text are spread over the twelve months from here on.
pub const BEGIN: i64 = 1_761_955_200;

/// 2026-11-01T00:00:00Z.
pub const END: i64 = 1_793_491_200;

/// Edges of the twelve months, UTC.
pub const MONTHS: [i64; 13] = [
    1_761_955_200,
    1_764_547_200,
    1_767_225_600,
    1_769_904_000,
    1_772_323_200,
    1_775_001_600,
    1_777_593_600,
    1_780_272_000,
    1_782_864_000,
    1_785_542_400,
    1_788_220_800,
    1_790_812_800,
    1_793_491_200,
];

/// Whose question the text answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// The agent's sixteen fields.
    Agent,
    /// The four fields that the Python agent asks for: Account|ReqTRES|Elapsed|User.
    Peer,
}

/// Random numbers that are the same everywhere (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// Prints the records of so many jobs one after another.
pub struct Jobs {
    random: Random,
    jobs: u64,
    printed: u64,
    dbindex: u64,
    job_id: u64,
    line: String,
}

impl Jobs {
    pub fn new(jobs: u64, seed: u64) -> Jobs {
        Jobs {
            random: Random(seed),
            jobs,
            printed: 0,
            dbindex: 4_000_000,
            job_id: 3_900_000,
            line: String::new(),
        }
    }

    /// Appends the next row, and says whether there was one.
    pub fn print(&mut self, asker: Asker, into: &mut Vec<u8>) -> bool {
        if self.printed == self.jobs {
            return false;
        }
        let submit = BEGIN + ((END - BEGIN) as u64 * self.printed / self.jobs) as i64;
        self.printed += 1;
        // The last task of an array and the next incarnation of a requeued job have a number that is farther on.
        self.dbindex += 1 + self.random.below(2);
        if !self.random.one_in(40) {
            self.job_id += 1;
        }
        let random = &mut self.random;
        let user = random.below(2000);
        let account = (user * 7 + if random.one_in(4) { 300 + user / 50 } else { 0 }) % 600;
        let (cancelled, running) = (random.one_in(50), submit > END - 86_400 && random.one_in(4));
        let start = submit + 1 + random.below(20_000) as i64;
        let length = 1 + if random.one_in(20) { random.below(400_000) } else { random.below(9000) };
        let suspended = if random.one_in(200) { random.below(length) } else { 0 };
        let end = start + length as i64;
        let mut alloc = String::new();
        shape(random, &mut alloc);
        let state = match random.below(10) {
            _ if cancelled => "CANCELLED by 1000",
            _ if running => "RUNNING",
            0 => "FAILED",
            1 => "TIMEOUT",
            2 => "REQUEUED",
            _ => "COMPLETED",
        };
        let partition = ["batch", "gpu", "long", "debug", "bigmem"][random.below(5) as usize];
        let qos = ["normal", "high", "low"][random.below(3) as usize];
        self.line.clear();
        let line = &mut self.line;
        let written = match asker {
            Asker::Peer => {
                let length = if cancelled { 0 } else { length };
                write!(line, "ac{account:04}|{alloc}|{}|user{user:05}", clock(length))
            }
            Asker::Agent => {
                let start_text = if cancelled { "None".to_owned() } else { start.to_string() };
                let end_text = if running && !cancelled { "Unknown".to_owned() } else { end.to_string() };
                write!(
                    line,
                    "lab\x1f{}\x1f{}\x1fac{account:04}\x1fuser{user:05}\x1f{state}\x1f{submit}\x1f{submit}\x1f{start_text}\x1f\
                     {end_text}\x1f{}\x1f{}\x1f{}\x1f{}\x1f{}\x1f{}",
                    self.dbindex,
                    self.job_id,
                    clock(suspended),
                    length - suspended,
                    partition,
                    qos,
                    1000 + account * 7 + user,
                    if cancelled { "" } else { &alloc },
                )
            }
        };
        written.expect("writing to a string does not fail");
        into.extend_from_slice(self.line.as_bytes());
        into.push(b'\n');
        true
    }
}

/// Rows of so many jobs.
pub fn text(jobs: u64, seed: u64, asker: Asker) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rows = Jobs::new(jobs, seed);
    while rows.print(asker, &mut text) {}
    text
}

fn clock(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}-{clock}") } else { clock }
}

fn shape(random: &mut Random, into: &mut String) {
    let cpus = 1_u64 << random.below(8);
    let per_cpu = [1000, 2000, 3500, 4000, 7800][random.below(5) as usize];
    let (mem, nodes) = (cpus * per_cpu, cpus.div_ceil(64));
    let written = match random.below(10) {
        0 => {
            let (kind, gpus) = (["a100", "h100"][random.below(2) as usize], 1 + random.below(8));
            let billing = cpus + gpus * 16;
            write!(
                into,
                "billing={billing},cpu={cpus},gres/gpu:{kind}={gpus},gres/gpu={gpus},mem={mem}M,node={nodes}"
            )
        }
        1 => write!(into, "billing={cpus},cpu={cpus},license/matlab@srv=1,mem={mem}M,node={nodes}"),
        2 => write!(
            into,
            "billing={cpus},cpu={cpus},energy={},mem={mem}M,node={nodes}",
            random.below(40) * 1000
        ),
        _ => write!(into, "billing={cpus},cpu={cpus},mem={mem}M,node={nodes}"),
    };
    written.expect("writing to a string does not fail");
}
