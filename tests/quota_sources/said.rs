//! What the sources say, and what stands when they say nothing.

use slurm_site_agent::agent::cycle::CycleReport;
use slurm_site_agent::agent::facts::{Asking, Facts, fetch, fetch_from};
use slurm_site_agent::agent::{Agent, Outside};
use slurm_site_agent::core::exact::Exact;
use slurm_site_agent::core::quota::{Bound, RuleKind, Window};
use slurm_site_agent::core::quota_map::SourceQuotas;
use slurm_site_agent::emulator::central::{Fault, FaultKind};
use slurm_site_agent::store::Store;

use super::bench::Bench;
use super::{HOUR, NOMAD, ROBOT, WALDUR, cores, most, name, servers, set_cores};

async fn all_three() -> Bench {
    Bench::of_sources(&servers(), &[WALDUR, NOMAD, ROBOT].concat()).await
}

/// What the sources say, asked now.
async fn ask(bench: &mut Bench) -> Facts {
    let now = bench.site.clock.now();
    fetch(&mut bench.site.agent, now).await.expect("the store works")
}

/// What those say that have changed, and what the others have said.
async fn ask_stirred(bench: &mut Bench) -> Facts {
    let now = bench.site.clock.now();
    fetch_from(&mut bench.site.agent, Asking::Stirred, now).await.expect("the store works")
}

fn errors(report: &CycleReport) -> Vec<&str> {
    report.sources.iter().filter(|source| source.error.is_some()).map(|source| source.name.as_str()).collect()
}

/// The agent as a new process has it: only what is durable is left. Slurm is not asked for what sources say.
fn restarted(mut bench: Bench) -> Bench {
    let (config, clock) = (bench.site.agent.config.clone(), bench.site.clock.clone());
    let outside = Outside { clock, ..Outside::real(&config) };
    drop(bench.site.agent);
    let store = Store::open(&config.store.path).expect("the store");
    bench.site.agent = Agent::new(config, outside, store).expect("an agent");
    bench
}

#[tokio::test]
async fn each_kind_of_source_is_asked_in_its_own_words_and_only_what_is_for_accounts_here_is_kept() {
    let mut bench = all_three().await;
    let now = bench.site.clock.now();
    let facts = ask(&mut bench).await;
    for (offer, state) in facts.quotas.iter().zip(&facts.states) {
        assert_eq!((offer.answered, &offer.stale), (Some(now), &None), "{state:?}");
        assert_eq!((state.error.as_deref(), state.notices.len()), (None, 0), "{state:?}");
        assert_eq!((&state.name, state.quotas), (&offer.source, offer.quotas.len()));
    }
    let [waldur, nomad, robot] = facts.quotas.as_slice() else { panic!("{facts:?}") };
    let SourceQuotas::Budget { quotas, map } = &waldur.quotas else { panic!("{waldur:?}") };
    let cpu = quotas.iter().find(|quota| quota.name == "nc_cpu_usage").expect("the quota on cpu");
    assert_eq!(map.account(&cpu.scope).map(|account| account.as_str()), Some("physics"), "by its backend_id");
    let decimal = |text| Exact::parse(text).expect("a number");
    assert_eq!((cpu.limit, cpu.usage, cpu.threshold), (most(600), decimal("20.5"), Some(decimal("480"))));
    assert_eq!((quotas.len(), quotas[1].limit), (2, Bound::Unlimited), "no storage, no project");
    let SourceQuotas::Concurrency { quotas, usages, .. } = &nomad.quotas else { panic!("{nomad:?}") };
    assert_eq!((quotas.len(), cores(&nomad.quotas)), (1, most(2)));
    assert_eq!(usages[0].regions["global"].all.cores, most(1), "asked for, since the quota is shared");
    let SourceQuotas::Rate { quotas, map } = &robot.quotas else { panic!("{robot:?}") };
    let (rule, policy) = (quotas[0].default_rules[0], &quotas[0].policies[0]);
    assert_eq!((rule.kind, rule.limit, rule.window), (RuleKind::Requests, 3, Window::Min));
    assert_eq!((policy.reserved, policy.rules[0].window), (Some(decimal("0.25")), Window::Hour));
    assert_eq!((quotas.len(), map.users["u1"].as_str()), (1, "alice"));
}

#[tokio::test]
async fn every_kind_of_source_is_asked_in_a_cycle_and_the_second_cycle_has_nothing_to_do() {
    // The version may stand in the address or be left out.
    let nomad = NOMAD.replace("/nomad/", "/nomad/v1/");
    let robot = ROBOT.replace("URL/", "URL/api/v2/");
    for (source, kind, quotas) in [(WALDUR, "waldur", 2), (&nomad, "nomad", 1), (&robot, "robot", 1)] {
        let mut bench = Bench::of_sources(&servers(), source).await;
        let report = bench.cycle().await;
        assert!(errors(&report).is_empty(), "{kind}: {:?}", report.sources);
        assert_eq!((report.sources.len(), report.sources[0].quotas), (1, quotas), "{kind}");
        bench.settle(3).await;
        let offers = ask(&mut bench).await.quotas;
        assert!(offers[0].stale.is_none() && offers[0].quotas.len() == quotas, "{kind}: {offers:?}");
    }
}

#[tokio::test]
async fn sources_that_are_down_stand_with_what_they_said_last_and_then_decide_nothing_until_they_are_back() {
    let mut bench = all_three().await;
    let said = ask(&mut bench).await;
    let answered = bench.site.clock.now();
    assert!(said.quotas.iter().all(|offer| offer.answered == Some(answered) && offer.stale.is_none()));
    bench.portal.down().await;
    bench.advance(HOUR);
    let report = bench.cycle().await;
    assert_eq!(errors(&report), ["waldur", "nomad", "robot"]);
    let quotas: Vec<usize> = report.sources.iter().map(|source| source.quotas).collect();
    assert_eq!(quotas, [2, 1, 1], "{:?}", report.sources);
    let age_max_s = i64::try_from(bench.site.agent.config.limits.facts_age_max.as_secs()).expect("a time");
    for (later_s, decides) in
        [(HOUR, true), (age_max_s, true), (age_max_s + 1, false), (age_max_s + 100 * HOUR, false)]
    {
        bench.site.clock.set(answered.plus(later_s));
        // Each look is of a new process: what was said is durable.
        bench = restarted(bench);
        let facts = ask(&mut bench).await;
        for (offer, first) in facts.quotas.iter().zip(&said.quotas) {
            assert_eq!((&offer.quotas, offer.answered), (&first.quotas, Some(answered)), "never no limit");
            assert_eq!(offer.stale.is_none(), decides, "{later_s}: {:?}", offer.stale);
        }
        assert!(facts.states.iter().all(|state| state.error.is_some()), "{:?}", facts.states);
    }
    bench.portal.up(|state| set_cores(state, 5)).await;
    let back = ask(&mut bench).await;
    assert!(back.quotas.iter().all(|offer| offer.stale.is_none()), "{back:?}");
    assert_eq!(cores(&back.quotas[1].quotas), most(5));
}

#[tokio::test]
async fn a_source_whose_answers_are_cut_stands_as_one_that_is_down() {
    let mut bench = all_three().await;
    let said = ask(&mut bench).await;
    bench.portal.handle.push_fault(Fault { times: None, ..Fault::once(FaultKind::Cut) });
    bench.advance(HOUR);
    let facts = ask(&mut bench).await;
    assert!(facts.states.iter().all(|state| state.error.is_some()), "{:?}", facts.states);
    for (offer, first) in facts.quotas.iter().zip(&said.quotas) {
        assert_eq!((&offer.quotas, offer.answered, &offer.stale), (&first.quotas, first.answered, &None));
    }
    bench.portal.handle.with_state(|state| state.faults.clear());
    bench.portal.handle.with_state(|state| set_cores(state, 5));
    assert_eq!(cores(&ask(&mut bench).await.quotas[1].quotas), most(5));
}

#[tokio::test]
async fn a_source_that_has_never_answered_decides_nothing() {
    let mut bench = all_three().await;
    bench.portal.handle.push_fault(Fault { times: None, ..Fault::once(FaultKind::Cut) });
    let facts = ask(&mut bench).await;
    assert_eq!(facts.quotas.len(), 3);
    for offer in &facts.quotas {
        assert!(offer.quotas.is_empty() && offer.answered.is_none());
        let stale = offer.stale.as_deref().expect("why nothing is decided");
        assert!(stale.contains("has never answered; what is in force stays in force"), "{stale}");
    }
    let SourceQuotas::Concurrency { map, .. } = &facts.quotas[1].quotas else { panic!("{facts:?}") };
    assert_eq!(map.accounts["research"].as_str(), "physics", "whom it would govern is known all the same");
}

#[tokio::test]
async fn a_source_that_answers_nonsense_for_one_quota_keeps_that_one_as_it_was() {
    let mut bench = Bench::of_sources(&servers(), ROBOT).await;
    let before = ask(&mut bench).await.quotas;
    bench.portal.handle.with_state(|state| state.datarobot.quotas[0].default_rules[0].rule = "wishes".into());
    let report = bench.cycle().await;
    assert!(report.sources[0].notices[0].contains("wishes"), "{:?}", report.sources);
    let offers = ask(&mut bench).await.quotas;
    assert_eq!(offers[0].quotas, before[0].quotas);
}

#[tokio::test]
async fn a_cycle_for_a_change_asks_only_who_has_changed_and_again_when_that_failed() {
    let mut bench = all_three().await;
    ask(&mut bench).await;
    bench.portal.handle.with_state(|state| set_cores(state, 3));
    bench.portal.handle.forget_requests();
    bench.site.agent.stirred.note(&name("nomad"));
    let facts = ask_stirred(&mut bench).await;
    assert_eq!((facts.quotas.len(), cores(&facts.quotas[1].quotas)), (3, most(3)));
    let asked: Vec<_> = bench.portal.handle.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(asked, ["/nomad/v1/quotas", "/nomad/v1/quota-usages"]);
    assert!(!bench.site.agent.stirred.any());
    bench.portal.handle.with_state(|state| set_cores(state, 4));
    bench.site.agent.stirred.note(&name("nomad"));
    bench.portal.handle.push_fault(Fault::once(FaultKind::Cut).on("GET", "/nomad/").times(4));
    let failed = ask_stirred(&mut bench).await;
    assert_eq!(cores(&failed.quotas[1].quotas), most(3), "what it said last stands");
    assert!(
        failed.states[1].error.is_some() && bench.site.agent.stirred.any(),
        "the change is not forgotten"
    );
    let facts = ask_stirred(&mut bench).await;
    assert_eq!(cores(&facts.quotas[1].quotas), most(4));
}
