//! The agent in this process, on an emulated Slurm in memory and the embedded server, with a hand in between: what Slurm
//! answers can be spoiled, and every program that is run is written down.

#![allow(
    dead_code,
    reason = "each test crate compiles all of this and uses a part; expect would fail where all is used"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use slurm_site_agent::agent::cycle::{Ask, CycleReport, cycle};
use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::emulator::central::CentralState;
use slurm_site_agent::emulator::slurm::{EmulatedSlurm, World};
use slurm_site_agent::slurm::{Answer, RunError, Runner};

use crate::support::{AMIE_KEY, COMPONENTS, Portal, Site, TOKEN};

/// What is done to the answer of a program: its bare name, its arguments, what it would say.
pub type Spoil = Box<dyn FnMut(&str, &[String], Answer) -> Result<Answer, RunError> + Send>;

/// The shipped data, as JSON to be changed by a test.
pub fn shipped(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("shipped data")).expect("it is JSON")
}

/// Agent, portal and Slurm with their hands in between.
pub struct Bench {
    pub site: Site,
    pub portal: Portal,
    pub slurm: Arc<EmulatedSlurm>,
    runs: Arc<Mutex<Vec<String>>>,
    spoil: Arc<Mutex<Option<Spoil>>>,
}

/// The configuration of the bench: the shipped one's values, short time limits, all at URL.
const CONFIG: &str = r#"
[cluster]
name = "emulated"
[[source]]
name = "portal"
kind = "waldur-policy"
url = "URL/api/"
token_file = "FOLDER/token"
offering = "5e1f0a3c9b7d4e2f8a6c1d0b3e5f7a90"
timeout = "2s"
response_bytes_max = 1048576
COMPONENTS
[limits]
tighten_share_percent = 100
[store]
path = "FOLDER/state.db"
[amie]
url = "URL/amie/api/v1/"
site = "EMULATED"
key_file = "FOLDER/key"
resource = "cluster.emulated.example.org"
timeout = "2s"
[amie.projects]
physics = "TG-PHY260001"
geology = "TG-GEO260002"
"#;

fn configuration(url: &str) -> String {
    CONFIG.replace("COMPONENTS", COMPONENTS).replace("URL", url.trim_end_matches('/'))
}

impl Bench {
    /// On these worlds, at the Slurm's instant.
    pub async fn new(slurm: &Value, central: &Value) -> Bench {
        let world = World::from_json(&slurm.to_string()).expect("a world");
        let now = Epoch(world.now());
        let mut state: CentralState = serde_json::from_value(central.clone()).expect("a server's state");
        state.users[0].token = TOKEN.to_owned();
        state.amie.sites[0].api_key = AMIE_KEY.to_owned();
        let portal = Portal::start(state).await;
        let config = configuration(&portal.url);
        Bench::with(&config, world, now, portal)
    }

    /// On the shipped data with another server in the portal's place; some text of the configuration replaced.
    pub async fn at(url: &str, (old, new): (&str, &str)) -> Bench {
        let bench = Bench::shipped().await;
        let world = World::from_json(&shipped("slurm.json").to_string()).expect("a world");
        let config = configuration(url).replace(old, new);
        Bench::with(&config, world, bench.site.clock.now(), bench.portal)
    }

    /// On the shipped Slurm with this server alone and these `[[source]]` entries in place of the shipped one; URL in them
    /// stands for the server. Every secret is [`TOKEN`].
    pub async fn of_sources(central: &Value, sources: &str) -> Bench {
        let world = World::from_json(&shipped("slurm.json").to_string()).expect("a world");
        let now = Epoch(world.now());
        let mut state: CentralState = serde_json::from_value(central.clone()).expect("a server's state");
        state.clock = slurm_site_agent::emulator::central::Clock::Fixed(
            jiff::Timestamp::from_second(now.0).expect("an instant"),
        );
        let portal = Portal::start(state).await;
        let (head, rest) = CONFIG.split_once("[[source]]").expect("a source");
        let (_, rest) = rest.split_once("COMPONENTS").expect("its end");
        let (rest, _) = rest.split_once("[amie]").expect("its end");
        let sources = sources.replace("URL", portal.url.trim_end_matches('/'));
        let config = format!("{head}{sources}\n{COMPONENTS}{rest}");
        Bench::with(&config, world, now, portal)
    }

    fn with(config: &str, world: World, now: Epoch, portal: Portal) -> Bench {
        let slurm = Arc::new(EmulatedSlurm::in_memory(world));
        let (runs, spoil) = (Arc::default(), Arc::default());
        let runner = runner(&slurm, &runs, &spoil);
        let site = Site::new(config, now, Some(runner));
        Bench { site, portal, slurm, runs, spoil }
    }

    /// On the shipped data.
    pub async fn shipped() -> Bench {
        Bench::new(&shipped("slurm.json"), &shipped("central.json")).await
    }

    /// One cycle.
    pub async fn cycle(&mut self) -> CycleReport {
        self.site.cycle().await
    }

    /// One cycle that reads the open periods again.
    pub async fn deep_cycle(&mut self) -> CycleReport {
        let ask = Ask { deep: true, ..Ask::default() };
        cycle(&mut self.site.agent, &ask).await.expect("the store works")
    }

    /// Cycles until nothing is to be done.
    pub async fn settle(&mut self, most: usize) {
        let mut last = None;
        for _ in 0..most {
            let report = self.cycle().await;
            if report.is_quiet() {
                return;
            }
            last = Some(report);
        }
        panic!("still something to do after {most} cycles: {last:#?}");
    }

    /// Lets time pass everywhere.
    pub fn advance(&self, seconds: i64) {
        self.site.clock.set(self.site.clock.now().plus(seconds));
        self.world(|world| world.advance(seconds));
        self.portal.handle.advance(seconds);
    }

    /// Looks at or changes the emulated Slurm.
    pub fn world<R>(&self, act: impl FnOnce(&mut World) -> R) -> R {
        self.slurm.with_world(act).expect("a world in memory")
    }

    /// From now on the answers of programs go through `spoil`.
    pub fn spoil(
        &self,
        spoil: impl FnMut(&str, &[String], Answer) -> Result<Answer, RunError> + Send + 'static,
    ) {
        *self.spoil.lock().expect("no panic holds it") = Some(Box::new(spoil));
    }

    /// No longer.
    pub fn unspoil(&self) {
        *self.spoil.lock().expect("no panic holds it") = None;
    }

    /// Programs run since the last call, as one text each.
    pub fn runs(&self) -> Vec<String> {
        std::mem::take(&mut *self.runs.lock().expect("no panic holds it"))
    }

    /// Those of them that change something.
    pub fn modifies(&self) -> Vec<String> {
        self.runs().into_iter().filter(|run| run.starts_with("sacctmgr -i ")).collect()
    }

    /// Associations as the emulated Slurm has them, by name, without the instants of resets. A list that says no more than
    /// the inherited one is as good as none.
    pub fn associations(&self) -> BTreeMap<String, Value> {
        let text = self.world(|world| world.to_json());
        let mut world: Value = serde_json::from_str(&text).expect("JSON");
        let mut found = BTreeMap::new();
        for kind in ["accounts", "users"] {
            for row in world[kind].as_array_mut().expect("a list") {
                normalise(row);
                found.insert(format!("{kind} {}", row["name"].as_str().expect("a name")), row.clone());
            }
        }
        found
    }
}

fn normalise(row: &mut Value) {
    if let Some(at) = row.get_mut("usage_reset_at") {
        *at = Value::Bool(true);
    }
    if row.get("qos").is_none() && row.get("parent").is_some() {
        row["qos"] = serde_json::json!(["normal"]);
    }
    if let Some(Value::Array(rows)) = row.get_mut("associations") {
        rows.iter_mut().for_each(normalise);
    }
}

fn runner(
    slurm: &Arc<EmulatedSlurm>,
    runs: &Arc<Mutex<Vec<String>>>,
    spoil: &Arc<Mutex<Option<Spoil>>>,
) -> Runner {
    let (slurm, runs, spoil) = (Arc::clone(slurm), Arc::clone(runs), Arc::clone(spoil));
    Runner::Emulated(Arc::new(move |program, args, env: &BTreeMap<String, String>| {
        let argv = format!("{program} {}", args.join(" "));
        runs.lock().expect("no panic holds it").push(argv.clone());
        let output = slurm.run(program, args, env).expect("a world in memory");
        if output.hangs() {
            return Err(RunError::TimedOut { argv, after: Duration::from_secs(60) });
        }
        let answer = Answer { stdout: output.stdout, stderr: output.stderr, status: output.status };
        match &mut *spoil.lock().expect("no panic holds it") {
            Some(spoil) => spoil(program, args, answer),
            None => Ok(answer),
        }
    }))
}
