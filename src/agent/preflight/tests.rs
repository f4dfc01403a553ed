//! Every rule as a row: what is changed on a healthy site, and the finding that must come of it.

use std::path::PathBuf;

use super::*;
use crate::config;
use crate::core::association::{ObservedAccount, ObservedAssociation, Share, TresLimits};
use crate::core::component::Components;
use crate::core::exact::Exact;
use crate::core::name::AccountName;
use crate::core::small_map::SmallMap;
use crate::core::tres::Tres;
use crate::slurm::{sacctmgr, scontrol};

/// slurmctld's configuration as a real 22.05.8 prints it.
const SCONTROL: &str = include_str!("../../../fixtures/slurm/edge-22.05.8/scontrol-config.out");
const SACCTMGR: &str = include_str!("../../../fixtures/slurm/edge-22.05.8/sacctmgr-config.out");
const QOS: &str = include_str!("../../../fixtures/slurm/edge-22.05.8/sacctmgr-qos.out");
const CLUSTERS: &str = include_str!("../../../fixtures/slurm/edge-22.05.8/sacctmgr-cluster.out");

const CONFIG: &str = r#"
[cluster]
name = "lab"

[store]
path = "/nowhere/state.db"

[components]
cpu = { tres = "cpu", unit = "h" }
ram = { tres = "mem", unit = "GB-h" }

[[allocation]]
account = "bio"
limits = { cpu = 1000, ram = 400 }
weights = { CPU = 1, RAM = 0.25 }
"#;

/// The configuration with one line of slurmctld's another value.
fn configuration(name: &str, value: &str) -> SlurmConfiguration {
    let line = |line: &str| match line.split_once('=') {
        Some((key, _)) if key.trim() == name => format!("{name} = {value}"),
        _ => line.to_owned(),
    };
    let text: Vec<String> = SCONTROL.lines().map(line).collect();
    assert!(text.iter().any(|line| *line == format!("{name} = {value}")), "{name} is in the fixture");
    scontrol::parse_configuration(text.join("\n").as_bytes()).unwrap()
}

fn qos_of(text: &str) -> BTreeMap<QosName, ObservedQos> {
    sacctmgr::qos::parse(text.as_bytes())
}

fn partition(weights: Option<&str>) -> Partition {
    let text = weights.map_or(String::new(), |weights| format!(" TRESBillingWeights={weights}"));
    let line = format!("PartitionName=debug State=UP{text}\n");
    scontrol::parse_partitions(line.as_bytes()).unwrap().remove(0)
}

fn account(name: &str, parent: Option<&str>) -> (AccountName, ObservedAccount) {
    let named = |name: &str| AccountName::parse(name).unwrap();
    let row = ObservedAssociation {
        share: Share::Number(1),
        limits: TresLimits::new(),
        jobs: Default::default(),
        qos: Default::default(),
        qos_is_own: false,
        default_qos: None,
        default_qos_is_own: false,
    };
    let account = ObservedAccount {
        account: named(name),
        parent: parent.map(named),
        row: row.into(),
        users: Vec::new(),
    };
    (named(name), account)
}

fn server() -> ServerFacts {
    ServerFacts {
        name: "waldur".into(),
        url: "https://waldur.example.org/api/".parse().unwrap(),
        secret: SecretFacts::Readable,
        answer: Some(Ok(ServerAnswer {
            has: "1 policies".into(),
            clock_skew_s: Some(-2),
            notices: Vec::new(),
        })),
    }
}

fn site() -> (Facts, Config) {
    let config = config::parse(CONFIG, "test.toml").unwrap();
    let own = &config.allocations[0];
    let (policy, allocation) = (own.policy.as_ref().clone(), own.allocation.as_ref().clone());
    let snapshot = Snapshot { policies: vec![policy], allocations: vec![allocation] };
    let version = || Some("22.05.8".to_owned());
    let facts = Facts {
        now: Epoch(1_795_332_000),
        mode: Mode::Production,
        missing_programs: Vec::new(),
        versions: Ok(Versions { client: version(), controller: version(), database: version() }),
        controllers: Ok(vec![Controller { role: "primary".into(), host: "ctl".into(), is_up: true }]),
        configuration: Ok(scontrol::parse_configuration(SCONTROL.as_bytes()).unwrap()),
        database: Ok(sacctmgr::tables::parse_database_configuration(SACCTMGR.as_bytes())),
        clusters: Ok(sacctmgr::tables::parse_clusters(CLUSTERS.as_bytes())),
        qos: Ok(qos_of(&QOS.replace("|billing=70,mem=8G", "|"))),
        observed: Ok(Observed {
            accounts: [account("root", None), account("bio", Some("root"))].into(),
            rejected: 0,
            odd: BTreeMap::new(),
        }),
        partitions: Ok(vec![partition(Some("CPU=1.0,Mem=0.25G"))]),
        raw_usage: Ok(BTreeMap::new()),
        user: AgentUser { name: "slurm-site-agent".into(), is_root: false, because: "test" },
        admin_level: Ok(Some(AdminLevel::Administrator)),
        servers: vec![server()],
        offers: vec![(SourceName::parse("local").unwrap(), snapshot)],
        store: StoreFacts {
            path: "/nowhere/state.db".into(),
            readable: Ok(Some(StoreContent { collected: Some(Epoch(1_795_331_000)) })),
            unwritable: None,
            holder: None,
        },
    };
    (facts, config)
}

fn set(name: &'static str, value: &'static str) -> impl Fn(&mut Facts, &mut Config) {
    move |facts, _| facts.configuration = Ok(configuration(name, value))
}

fn qos(text: &'static str) -> impl Fn(&mut Facts, &mut Config) {
    move |facts, _| facts.qos = Ok(qos_of(text))
}

/// Findings of the site after a change, worse than ok.
fn findings(change: impl Fn(&mut Facts, &mut Config)) -> Vec<Finding> {
    let (mut facts, mut config) = site();
    change(&mut facts, &mut config);
    let mut found = judge(&facts, &config);
    found.retain(|finding| finding.severity > Severity::Ok);
    found
}

/// What a healthy site has in any case: the note on `safe`.
fn only_what_is_new(mut found: Vec<Finding>) -> Vec<Finding> {
    found.retain(|finding| !(finding.check == "slurm.enforce" && finding.severity == Severity::Note));
    found
}

#[track_caller]
fn check(change: impl Fn(&mut Facts, &mut Config), severity: Severity, check: &str, words: &str) {
    let found = only_what_is_new(findings(change));
    let [finding] = &found[..] else { panic!("one finding was expected: {found:#?}") };
    assert_eq!((finding.severity, finding.check), (severity, check), "{finding:#?}");
    let text = format!("{} | {} | {}", finding.found, finding.consequence, finding.fix);
    assert!(text.contains(words), "{text:?} does not say {words:?}");
    assert!(!finding.consequence.is_empty());
}

use Severity::{Error, Note, Warning};

#[test]
fn a_healthy_site_has_nothing_but_a_note() {
    let found = findings(|_, _| {});
    assert_eq!(only_what_is_new(found.clone()), []);
    assert_eq!(found.len(), 1);
}

#[test]
fn slurm_as_it_should_not_be_is_told_with_its_fix() {
    check(
        |f, _| f.missing_programs = vec![(PathBuf::from("/usr/bin/sreport"), "not there".into())],
        Error,
        "slurm.programs",
        "/usr/bin/sreport: not there",
    );
    let versions = |client: &'static str, controller: &'static str| {
        move |f: &mut Facts, _: &mut Config| {
            let version = |text: &str| Some(text.to_owned());
            f.versions = Ok(Versions {
                client: version(client),
                controller: version(controller),
                database: version("26.05.3"),
            });
        }
    };
    check(versions("23.02.1", "22.05.8"), Warning, "slurm.version", "newer than they are");
    check(versions("19.05.1", "22.05.8"), Warning, "slurm.version", "20.11 to 26.05");
    assert_eq!(only_what_is_new(findings(versions("22.05.8", "26.05.3"))), []);
    check(
        |f, _| {
            f.controllers = Ok(vec![Controller { role: "primary".into(), host: "ctl".into(), is_up: false }])
        },
        Error,
        "slurm.controller",
        "primary on ctl is down",
    );
    check(
        |_, c| c.cluster.name = "other".to_owned().try_into().unwrap(),
        Error,
        "slurm.cluster",
        "knows lab",
    );
    check(set("ClusterName", "elsewhere"), Error, "slurm.cluster", "cluster.slurm_conf");
    check(set("AccountingStorageType", "accounting_storage/none"), Error, "slurm.accounting", "slurmdbd");
    check(set("AccountingStorageTRES", "cpu,billing"), Error, "slurm.tres", "lacks mem");
    check(|f, _| f.database = Ok(Settings::default()), Error, "slurmdbd.answer", "does not answer");
    check(|f, _| f.qos = Err("no answer".into()), Error, "qos.exist", "no answer");
    check(|f, _| f.observed = Err("no answer".into()), Error, "accounts.exist", "no answer");
}

#[test]
fn what_is_not_enforced_and_how_raw_usage_is_counted_is_told() {
    let enforce = |value: &'static str| {
        let found = only_what_is_new(findings(set("AccountingStorageEnforce", value)));
        found.iter().map(|finding| finding.severity).collect::<Vec<_>>()
    };
    assert_eq!(enforce("associations,limits,qos,safe"), []);
    assert_eq!(enforce("all"), []);
    assert_eq!(enforce("associations,limits,qos"), [Warning]);
    assert_eq!(enforce("associations,limits,safe"), [Error], "without qos");
    assert_eq!(enforce("associations"), [Error, Error, Warning]);
    assert_eq!(enforce("none"), [Error, Error, Warning]);
    check(
        set("PriorityType", "priority/basic"),
        Warning,
        "slurm.priority",
        "GrpTRESMins limits are not enforced",
    );
    check(set("PriorityWeightQOS", "0"), Warning, "slurm.qos_weight", "slows nobody down");
    check(set("PriorityFlags", "MAX_TRES,NO_FAIR_TREE"), Warning, "slurm.priority_flags", "largest TRES");
    assert_eq!(only_what_is_new(findings(set("PriorityFlags", "CALCULATE_RUNNING"))), []);
    check(set("PriorityDecayHalfLife", "7-00:00:00"), Warning, "slurm.decay", "604800 s");
    check(set("PriorityDecayHalfLife", "soon"), Warning, "slurm.decay", "not known");
    check(set("PriorityUsageResetPeriod", "MONTHLY"), Warning, "slurm.usage_reset", "MONTHLY");
    check(set("PriorityCalcPeriod", "01:00:00"), Note, "slurm.calc_period", "3600 s");
}

#[test]
fn the_admin_level_must_be_enough_for_what_policies_want() {
    let level = |level| move |f: &mut Facts, _: &mut Config| f.admin_level = Ok(level);
    check(level(None), Error, "user.admin_level", "add user name=slurm-site-agent account=root cluster=lab");
    check(level(Some(AdminLevel::None)), Error, "user.admin_level", "adminlevel=Administrator");
    check(level(Some(AdminLevel::Operator)), Warning, "user.admin_level", "raw usage is not reset");
    let without_resets = |f: &mut Facts, _: &mut Config| {
        f.admin_level = Ok(Some(AdminLevel::Operator));
        f.offers[0].1.policies[0].raw_usage_reset = false;
        f.raw_usage = Err("nobody asks for it".into());
    };
    assert_eq!(only_what_is_new(findings(without_resets)), []);
    let root = |f: &mut Facts, _: &mut Config| {
        f.user.is_root = true;
        f.admin_level = Ok(None);
    };
    assert_eq!(only_what_is_new(findings(root)), []);
    let slurm_user = |f: &mut Facts, _: &mut Config| {
        f.user.name = "slurm".into();
        f.admin_level = Ok(None);
        f.configuration = Ok(configuration("SlurmUser", "slurm(64030)"));
    };
    assert_eq!(only_what_is_new(findings(slurm_user)), []);
    let private = |f: &mut Facts, _: &mut Config| {
        f.admin_level = Ok(Some(AdminLevel::None));
        f.configuration = Ok(configuration("PrivateData", "usage,jobs"));
    };
    let checks: Vec<&str> = only_what_is_new(findings(private)).iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["user.admin_level", "user.private_data"]);
    check(|f, _| f.raw_usage = Err("no answer".into()), Warning, "slurm.raw_usage", "no answer");
}

#[test]
fn a_qos_must_do_what_its_level_means() {
    const NORMAL: &str = "normal|100||||||||1.000000|\n";
    const SLOW: &str = "slowdown|10||||||||1.000000|\n";
    let with = |blocked: &str| qos_of(&format!("{NORMAL}{SLOW}{blocked}"));
    let blocked = |f: &mut Facts, row: &str| f.qos = Ok(with(row));
    check(qos("normal|100||||||||1.000000|\n"), Error, "qos.exist", "add qos blocked,slowdown");
    check(
        qos("normal|10||||||||1.0|\nslowdown|10||||||||1.0|\nblocked|0|||||0|||1.0|\n"),
        Warning,
        "qos.slowdown",
        "name=normal set priority=1010",
    );
    check(|f, _| blocked(f, "blocked|0||||||||1.000000|\n"), Error, "qos.blocked", "MaxSubmitJobsPerUser=0");
    check(|f, _| blocked(f, "blocked|0||0||||||1.000000|\n"), Warning, "qos.blocked", "accepts jobs");
    check(|f, _| blocked(f, "blocked|0||||0||||1.000000|\n"), Warning, "qos.blocked", "accepts jobs");
    check(|f, _| blocked(f, "blocked|0||||||0||1.000000|\n"), Warning, "qos.blocked", "accepts jobs");
    for refuses in
        ["blocked|0|||0|||||1.000000|\n", "blocked|0|||||0|||1.000000|\n", "blocked|0|||||||0|1.000000|\n"]
    {
        assert_eq!(only_what_is_new(findings(|f, _| blocked(f, refuses))), [], "{refuses}");
    }
    let by_submit = |f: &mut Facts, c: &mut Config| {
        c.qos.lever = crate::core::evaluate::Lever::Submit;
        f.qos = Ok(qos_of(&format!("{NORMAL}{SLOW}")));
    };
    assert_eq!(only_what_is_new(findings(by_submit)), [], "the blocked QOS is not used then");
    let refusing = "normal|100|||||0|||1.0|\nslowdown|10||||||||1.0|\nblocked|0|||||0|||1.0|\n";
    check(qos(refusing), Error, "qos.slowdown", "QOS normal refuses every submission");
    let free = "normal|100||||||||1.0|\nslowdown|10||||||||0.500000|\nblocked|0|||||0|||1.0|\n";
    check(qos(free), Warning, "qos.usage_factor", "slowdown 0.500000");
    let limited =
        "normal|100||||||||1.0|billing=70,mem=8G\nslowdown|10||||||||1.0|\nblocked|0|||||0|||1.0|\n";
    check(qos(QOS), Warning, "qos.limits", "QOS edge_q has");
    check(qos(limited), Warning, "qos.limits", "GrpTRESMins=billing=-1");
}

#[test]
fn a_ladder_must_go_down_step_by_step() {
    let ladder = |f: &mut Facts, c: &mut Config| {
        let rung = |percent, name: &str| crate::core::evaluate::Rung {
            percent: Exact::whole(percent),
            qos: QosName::parse(name).unwrap(),
        };
        c.qos.ladder = vec![rung(50, "low"), rung(100, "lower"), rung(120, "blocked")];
        f.offers[0].1.policies[0].strategy = crate::core::policy::QosStrategy::Progressive;
    };
    let rows = |low: u32, lower: u32| {
        let row = |name: &str, priority| format!("{name}|{priority}||||||||1.0|\n");
        let text = [row("normal", 100), row("slowdown", 1), row("low", low), row("lower", lower)].concat();
        qos_of(&format!("{text}blocked|500|||||0|||1.0|\n"))
    };
    let site = |low, lower| {
        move |f: &mut Facts, c: &mut Config| {
            ladder(f, c);
            f.qos = Ok(rows(low, lower));
        }
    };
    assert_eq!(
        only_what_is_new(findings(site(50, 20))),
        [],
        "the blocked QOS blocks whatever its priority is"
    );
    check(site(50, 60), Warning, "qos.slowdown", "lower has priority 60, low has 50");
    check(site(100, 20), Warning, "qos.slowdown", "low has priority 100, normal has 100");
}

#[test]
fn accounts_and_policies_are_held_against_what_is_there() {
    check(
        |f, _| {
            f.observed =
                Ok(Observed { accounts: [account("root", None)].into(), rejected: 0, ..Observed::default() })
        },
        Error,
        "accounts.exist",
        "add account bio cluster=lab",
    );
    check(|f, _| f.offers.clear(), Note, "accounts.exist", "nothing to do");
    check(|_, c| c.accounts.exclude = vec!["b*".into()], Warning, "accounts.allowed", "accounts.exclude");
    check(|f, _| f.observed.as_mut().unwrap().rejected = 3, Note, "accounts.odd", "3 associations");
    check(
        |f, _| f.partitions = Ok(vec![partition(Some("CPU=0.5"))]),
        Warning,
        "policies.meaning",
        "TRESBillingWeights=cpu=1,mem=0.25G",
    );
    check(|f, _| f.partitions = Ok(vec![partition(None)]), Warning, "policies.meaning", "bills cpu=1");
    check(|f, _| f.partitions = Err("no answer".into()), Warning, "policies.meaning", "could not be read");
    check(
        |f, c| {
            c.components.0.remove("ram");
            f.offers[0].1.policies[0].weights.remove("RAM");
        },
        Error,
        "policies.decidable",
        "[components.ram]",
    );
    let renamed = |controller: &'static str| {
        move |f: &mut Facts, _: &mut Config| {
            let name = AccountName::parse("bio_1").unwrap();
            f.offers[0].1.allocations[0].account = name;
            f.observed = Ok(Observed {
                accounts: [account("root", None), account("bio_1", Some("root"))].into(),
                rejected: 0,
                odd: BTreeMap::new(),
            });
            f.versions.as_mut().unwrap().controller = Some(controller.to_owned());
        }
    };
    check(renamed("23.11.0"), Note, "accounts.wildcards", "bio_1");
    assert_eq!(only_what_is_new(findings(renamed("23.02.7"))), []);
}

#[test]
fn raw_usage_that_leaves_no_room_under_a_limit_is_told_with_what_begins_it_anew() {
    let counted = |minutes: u64| {
        move |f: &mut Facts, _: &mut Config| {
            let tres_minutes = BTreeMap::from([(Tres::parse("billing").unwrap(), minutes)]);
            let usage = crate::slurm::RawUsage { raw_usage: minutes * 60, tres_minutes };
            f.raw_usage = Ok(BTreeMap::from([(AccountName::parse("bio").unwrap(), usage)]));
        }
    };
    // (1000 x 1 + 400 x 0.25) hours x 1.5 with all of the carryover x 60 x 1.2 grace = 118800 minutes of billing, which the policy will set.
    assert_eq!(only_what_is_new(findings(counted(118_799))), []);
    check(counted(118_800), Note, "accounts.raw_usage", "raw usage of 118800 billing-minutes");
    check(counted(118_800), Note, "accounts.raw_usage", "where name=bio cluster=lab set RawUsage=0");
    // The limit in force counts where there is one.
    let in_force = |limit: u64| {
        move |f: &mut Facts, c: &mut Config| {
            counted(118_800)(f, c);
            let observed = f.observed.as_mut().unwrap();
            let bio = observed.accounts.get_mut(&AccountName::parse("bio").unwrap()).unwrap();
            let limits = [(Tres::parse("billing").unwrap(), limit)].into();
            let row = std::sync::Arc::make_mut(&mut bio.row);
            row.limits = [(crate::core::policy::LimitType::GrpTRESMins, limits)].into();
        }
    };
    assert_eq!(only_what_is_new(findings(in_force(130_000))), []);
    check(in_force(118_000), Note, "accounts.raw_usage", "GrpTRESMins of 118000");
}

#[test]
fn weights_that_a_server_does_not_find_are_told_where_its_word_counts() {
    let named = |source: &'static str, key: &'static str| {
        move |f: &mut Facts, _: &mut Config| {
            let offer = &mut f.offers[0];
            offer.0 = SourceName::parse(source).unwrap();
            offer.1.policies[0].weights = SmallMap::from([
                ("CPU".to_owned(), Exact::whole(1)),
                (key.to_owned(), Exact::parse("0.25").unwrap()),
            ]);
        }
    };
    check(named("waldur", "Mem"), Note, "policies.weights", "the server finds no weight for ram");
    assert_eq!(only_what_is_new(findings(named("waldur", "RAM"))), [], "letters in any case");
    assert_eq!(only_what_is_new(findings(named("local", "Mem"))), [], "there is no server");
}

#[test]
fn weights_are_told_as_slurm_conf_writes_them() {
    let (facts, _) = site();
    let mut policy = facts.offers[0].1.policies[0].clone();
    let components = |text: &str| {
        let text = format!("[cluster]\nname = \"lab\"\n[components]\n{text}");
        config::parse(&text, "test.toml").unwrap().components
    };
    let line = |policy: &Policy, known: &Components| policies::billing_weights(policy, known.0.keys(), known);
    // 2 for 1000 cpu-hours is 0.002 an hour; 1 for a TB-hour is 1/1024 for a GB-hour.
    let known = components(
        "cpu = { tres = \"cpu\", unit = \"kh\" }\nram = { tres = \"mem\", unit = \"TB-h\" }\ngpu = { tres = \"gres/gpu\", unit = \"h\" }",
    );
    policy.weights = SmallMap::from([
        ("cpu".to_owned(), Exact::whole(2)),
        ("RAM".to_owned(), Exact::whole(1)),
        ("GRES/gpu".to_owned(), Exact::parse("8.5").unwrap()),
    ]);
    assert_eq!(line(&policy, &known).unwrap(), "cpu=0.002,gres/gpu=8.5,mem=0.0009765625G");
    policy.weights = SmallMap::from([("cpu".to_owned(), Exact::fraction(1, 3).unwrap())]);
    assert_eq!(line(&policy, &known), None, "a third has no end");
    assert_eq!(known.get("gpu").unwrap().tres, Tres::parse("gres/gpu").unwrap());
}

#[test]
fn servers_secrets_clocks_and_the_store_are_checked() {
    let with = |change: fn(&mut ServerFacts)| move |f: &mut Facts, _: &mut Config| change(&mut f.servers[0]);
    check(
        with(|s| {
            s.secret = SecretFacts::OnlyInUnit { credential: "waldur-token".into() };
            s.answer = None;
        }),
        Warning,
        "server.secret",
        "LoadCredential=waldur-token:FILE",
    );
    check(
        with(|s| {
            s.secret = SecretFacts::Unreadable("mode 0644".into());
            s.answer = None;
        }),
        Error,
        "server.secret",
        "mode 0644",
    );
    check(with(|s| s.answer = Some(Err("status 401".into()))), Error, "server.answer", "status 401");
    let answer = |change: fn(&mut ServerAnswer)| {
        move |f: &mut Facts, _: &mut Config| {
            if let Some(Ok(answer)) = &mut f.servers[0].answer {
                change(answer);
            }
        }
    };
    check(answer(|a| a.clock_skew_s = Some(301)), Warning, "server.clock", "5m 1s ahead");
    check(answer(|a| a.clock_skew_s = Some(-7200)), Warning, "server.clock", "2h behind");
    assert_eq!(
        only_what_is_new(findings(answer(|a| a.clock_skew_s = Some(-300)))),
        [],
        "the limit is allowed"
    );
    check(answer(|a| a.clock_skew_s = None), Note, "server.clock", "does not tell");
    check(
        answer(|a| a.notices = vec!["policy 7: no period (left out)".into()]),
        Warning,
        "server.rows",
        "policy 7",
    );
    check(
        with(|s| s.url = "http://waldur.example.org/api/".parse().unwrap()),
        Error,
        "server.transport",
        "in the clear",
    );
    for here in ["http://127.0.0.1:8080/api/", "http://[::1]/api/", "http://localhost/api/"] {
        check(
            move |f: &mut Facts, _: &mut Config| f.servers[0].url = here.parse().unwrap(),
            Note,
            "server.transport",
            "on this host",
        );
    }
    check(|f, _| f.store.readable = Err("damaged".into()), Error, "store", "damaged");
    check(|f, _| f.store.readable = Ok(None), Note, "store", "no store at /nowhere/state.db yet");
    check(|f, _| f.store.unwritable = Some("/nowhere/state.db-wal".into()), Error, "store", "chown");
    let holder = Holder { pid: Some(7), program: "slurm-site-agent".into(), since: None };
    check(move |f, _| f.store.holder = Some(holder.clone()), Note, "store.holder", "pid 7");
    let nobody = |f: &mut Facts, c: &mut Config| {
        c.allocations.clear();
        f.offers.clear();
    };
    let checks: Vec<(Severity, &str)> =
        only_what_is_new(findings(nobody)).iter().map(|f| (f.severity, f.check)).collect();
    assert_eq!(checks, [(Note, "accounts.exist"), (Warning, "server.none")]);
}
