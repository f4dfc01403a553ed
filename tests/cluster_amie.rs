//! AMIE records of jobs that ran on a REAL Slurm (see tests/cluster/lab).

mod support;

use slurm_site_agent::core::amie::{Detail, Record};
use slurm_site_agent::store::{AmieFilter, AmieState};
use support::{AMIE_KEY, Lab, Portal, Site, at};

fn records(site: &Site) -> Vec<Record> {
    let mut records = Vec::new();
    let filter = AmieFilter::default();
    site.agent
        .store
        .visit_amie(&filter, usize::MAX, &mut |row| {
            assert_eq!(row.state, AmieState::Loaded, "{row:#?}");
            records.push(row.record);
        })
        .expect("rows");
    records
}

#[tokio::test]
async fn each_incarnation_is_charged_once_as_billing_x_elapsed_and_restated_once_when_corrected() {
    let Some(lab) = Lab::find() else { return };
    lab.forget(&["amie_"]);
    lab.accounts(&["amie_a", "amie_b", "amie_c"], "root");
    let state = serde_json::json!({
        "clock": {"fixed": "2025-07-20T00:00:00Z"},
        "amie": {
            "sites": [{"name": "SITE", "api_key": AMIE_KEY}],
            "projects": [{"local_project_id": "TG-A"}, {"local_project_id": "TG-B"}]
        }
    });
    let portal = Portal::start(serde_json::from_value(state).expect("a state")).await;
    let config = format!(
        "{}[store]\npath = \"FOLDER/state.db\"\n[amie]\nurl = \"{}amie/api/v1/\"\nsite = \"SITE\"\nkey_file = \"FOLDER/key\"\n\
         resource = \"cluster.site.org\"\nread_back = \"0s\"\njob_names = true\n\
         since = \"2025-07-10\"\n[amie.projects]\namie_a = \"TG-A\"\namie_b = \"TG-B\"\n",
        lab.cluster(),
        portal.url
    );
    let start = at("2025-07-15T10:00:00Z").0;
    lab.jobs(&[
        format!("account=amie_a user=alice cpus=2 start={start} end={}", start + 3601),
        format!(
            "account=amie_b user=bob cpus=1 state=REQUEUED start={} end={} second={}-{}",
            start + 100,
            start + 1900,
            start + 4000,
            start + 5801
        ),
        format!("account=amie_b user=alice cpus=1 mem=3000M start={start} end={} array=3", start + 777),
        format!("account=amie_c user=bob cpus=1 start={start} end={}", start + 60),
    ]);
    // A name that would be rows of sacct and members of JSON; slurmdbd of this release takes a line break from sbatch and
    // makes quotes harmless, so it is put there directly.
    let row = "concat('n\"Charge\":\"0', char(10), 'lab', char(31), '1', char(31), '7', char(31), 'forged')";
    lab.lab("sql", &[format!("update lab_job_table set job_name = {row} where account like 'amie\\_%'")]);
    let mut site = Site::new(&config, at("2025-07-20T00:00:00Z"), None);
    let report = site.cycle().await;
    assert_eq!(report.collection.incomplete, None);
    let told = records(&site);
    // Against sacct's own figures, added up here.
    let text = lab.must(
        "sacct",
        &[
            "-aDXnP",
            "-M",
            "lab",
            "-S",
            "2025-07-15",
            "-E",
            "2025-07-16",
            "--noconvert",
            "-A",
            "amie_a,amie_b",
            "-o",
            "jobidraw,jobid,submit,start,end,alloctres,account,user",
        ],
    );
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!((rows.len(), told.len()), (6, 6), "{text}");
    let instant = |text: &str| at(&format!("{text}Z")).0;
    for row in &rows {
        let submit = instant(row[2]);
        let id = format!("lab.{}.{submit}", row[0]);
        let record =
            told.iter().find(|record| record.local_record_id == id).unwrap_or_else(|| panic!("{id}"));
        let billing: i64 =
            row[5].split(',').find_map(|tres| tres.strip_prefix("billing=")).unwrap().parse().unwrap();
        let millionths =
            (f64::from(i32::try_from(billing * (instant(row[4]) - instant(row[3]))).unwrap()) / 3600.0 * 1e6)
                .round();
        let charge: f64 = record.charge.parse().unwrap();
        assert!((charge * 1e6 - millionths).abs() < 0.5, "{id}: {charge} {billing}");
        let project = if row[6] == "amie_a" { "TG-A" } else { "TG-B" };
        assert_eq!((record.local_project_id.as_str(), record.username.as_str()), (project, row[7]));
        let Detail::Compute(compute) = &record.detail else { panic!("{record:?}") };
        assert_eq!((compute.submit.0, compute.end.0), (submit, instant(row[4])));
        if let Some((leader, _)) = row[1].split_once('_') {
            let is_leader = leader == row[0];
            assert_eq!(compute.parent_record_id.is_none(), is_leader, "{row:?}");
            let parent = compute.parent_record_id.clone().unwrap_or(id);
            assert!(told.iter().any(|told| told.local_record_id == parent), "{parent} was told: {row:?}");
        }
        assert_eq!(
            compute.job_name.as_deref(),
            Some("n\"Charge\":\"0"),
            "a line break ends it, and forges nothing"
        );
    }
    // The second incarnation names the first.
    let twice: Vec<&Vec<&str>> =
        rows.iter().filter(|row| rows.iter().filter(|other| other[0] == row[0]).count() == 2).collect();
    let submits: Vec<i64> = twice.iter().map(|row| instant(row[2])).collect();
    let (first, second) = (submits.iter().min().unwrap(), submits.iter().max().unwrap());
    let second = told.iter().find(|r| r.local_record_id == format!("lab.{}.{second}", twice[0][0])).unwrap();
    let Detail::Compute(compute) = &second.detail else { panic!() };
    assert_eq!(compute.parent_record_id, Some(format!("lab.{}.{first}", twice[0][0])));
    let waiting = site.agent.store.amie_waiting().unwrap();
    assert!(waiting.iter().any(|w| w.account == "amie_c" && w.jobs == 1), "{waiting:?}");
    assert!(site.cycle().await.is_quiet(), "a second cycle tells nothing");

    // Corrected in slurmdbd: the job of amie_a ended half an hour earlier. The nightly scan finds it.
    portal.handle.forget_requests();
    let sql = format!("update lab_job_table set time_end = {} where account = 'amie_a'", start + 1801);
    lab.lab("sql", &[sql]);
    let deep = slurm_site_agent::agent::cycle::Ask { deep: true, ..Default::default() };
    site.clock.set(at("2025-07-20T01:00:00Z"));
    for cycle in 0..2 {
        let report = slurm_site_agent::agent::cycle::cycle(&mut site.agent, &deep).await.unwrap();
        assert_eq!(report.enqueued, usize::from(cycle == 0), "{report:#?}");
    }
    let posts: Vec<_> = portal.handle.requests().into_iter().filter(|seen| seen.method == "POST").collect();
    assert_eq!(posts.len(), 1, "restated once: {posts:#?}");
    assert_eq!(posts[0].body.matches("LocalRecordID").count(), 1);
    let restated = records(&site).into_iter().find(|record| record.local_project_id == "TG-A").unwrap();
    let before = told.iter().find(|record| record.local_project_id == "TG-A").unwrap();
    assert_eq!(restated.local_record_id, before.local_record_id);
    let (was, is): (f64, f64) = (before.charge.parse().unwrap(), restated.charge.parse().unwrap());
    assert!((is / was - 1801.0 / 3601.0).abs() < 1e-5, "{was} {is}");
    let loaded = portal.handle.with_state(|state| state.amie.loaded.len());
    assert_eq!(loaded, 6, "each record once");
    // The account gets a project: what waited goes out.
    let with_c = config.replace("amie_b = ", "amie_c = \"TG-A\"\namie_b = ");
    let changed = support::read(&with_c, site.folder.path());
    site.agent.reconfigure(changed).unwrap();
    assert_eq!(site.cycle().await.enqueued, 1);
    assert_eq!(records(&site).len(), 7);
}
