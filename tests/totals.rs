//! Totals followed from cycle to cycle equal a full recount, whatever the ledger goes through.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use slurm_site_agent::agent::facts::Facts;
use slurm_site_agent::agent::judge::{Periods, totals, totals_of};
use slurm_site_agent::agent::verify::verify;
use slurm_site_agent::core::job::{JobKey, JobRecord, SuspendedBefore};
use slurm_site_agent::core::name::ClusterName;
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::core::tres::Tres;
use slurm_site_agent::slurm::{Answer, Runner};
use slurm_site_agent::store::{Collected, Collection};
use support::{Site, at};

const CONFIG: &str = "[cluster]\nname = \"lab\"\n[store]\npath = \"FOLDER/state.db\"\n";

/// One change of the ledger: which job, its times around the month's edge (hours), whether it has ended, suspension, DBIndex.
type Change = (u64, i64, Option<i64>, u64, bool);

fn record(cluster: &ClusterName, change: &Change, edge: i64) -> JobRecord {
    let (job, start_h, length_h, suspended_s, rekeyed) = *change;
    let start = edge + start_h * 3600;
    JobRecord {
        key: JobKey { cluster: cluster.clone(), dbindex: job + if rekeyed { 1000 } else { 0 } },
        job_id: job,
        account: format!("a{}", job % 3).into(),
        user: format!("u{}", job % 2).into(),
        state: "RUNNING".into(),
        submit: Epoch(edge - 900_000 - job as i64),
        eligible: Some(Epoch(start)),
        start: Some(Epoch(start)),
        end: length_h.map(|hours| Epoch(start + hours * 3600)),
        suspended_s: if length_h.is_some_and(|hours| hours > 0) { suspended_s } else { 0 },
        elapsed_s: 0,
        partition: "p".into(),
        qos: "q".into(),
        assoc_id: None,
        alloc: BTreeMap::from([(Tres::cpu(), 2), (Tres::billing(), 3)]).into(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn followed_totals_equal_a_recount(
        rounds in prop::collection::vec(
            prop::collection::vec((0u64..12, -90i64..90, prop::option::of(0i64..60), 0u64..3600, any::<bool>()), 0..8),
            1..6,
        ),
    ) {
        let runner = Runner::Emulated(Arc::new(|_, _, _| Ok(Answer { stdout: Vec::new(), stderr: Vec::new(), status: 0 })));
        let now = at("2026-03-20T00:00:00Z");
        let edge = at("2026-03-01T00:00:00Z").0;
        let mut site = Site::new(CONFIG, now, Some(runner));
        let cluster = site.agent.config.cluster.name.clone();
        let periods = Periods::of(&Facts::default(), now, &jiff::tz::TimeZone::UTC, 30 * 86_400).unwrap();
        for changes in &rounds {
            let mut records: BTreeMap<u64, JobRecord> = BTreeMap::new();
            for change in changes {
                records.insert(change.0, record(&cluster, change, edge));
            }
            let records: Vec<JobRecord> = records.into_values().collect();
            let suspended: Vec<SuspendedBefore> = records
                .iter()
                .filter(|job| job.suspended_s > 0 && job.held(now).unwrap().contains(Epoch(edge)))
                .map(|job| SuspendedBefore { key: job.key.clone(), edge: Epoch(edge), seconds: job.suspended_s / 2 })
                .collect();
            site.agent.store.put_collection(&Collection {
                cluster: &cluster,
                window: Window::new(Epoch(edge - 400_000), now),
                now,
                watermark: Some(now),
                records: &records,
                before: Collected::default(),
                more: false,
                suspended: &suspended,
                rejected: 0,
                reject_samples: Vec::new(),
                complete: true,
            }).unwrap();
            let followed = totals(&mut site.agent, &periods, now, false, &mut Vec::new()).unwrap();
            for window in verify(&site.agent.store, &cluster).unwrap() {
                prop_assert!(window.agrees(), "{:?}", window);
            }
            prop_assert_eq!(followed, totals_of(&site.agent, periods.windows(), now).unwrap());
        }
    }
}
