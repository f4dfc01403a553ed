//! Real answers with bytes flipped, rows cut, removed, repeated and reordered.

use std::collections::BTreeSet;

use proptest::prelude::*;
use slurm_site_agent::core::association::Observed;
use slurm_site_agent::core::job::JobRecord;
use slurm_site_agent::core::name::UserName;
use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::core::tres::Tres;
use slurm_site_agent::slurm::sacctmgr::{assoc, modify, qos, tables};
use slurm_site_agent::slurm::{sacct, scontrol, sreport, sshare};

use super::{ASSOC, JOBS, SSHARE, fixture, lab};

/// What can happen to bytes on their way.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Truncate(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let meaningful = prop::sample::select(b"\n|\x1f0-,=KMG.".to_vec());
    let one = prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        4 => (any::<usize>(), meaningful).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        1 => any::<usize>().prop_map(Damage::Truncate),
        1 => (any::<usize>(), 1..200usize).prop_map(|(at, many)| Damage::Remove(at, many)),
        1 => (any::<usize>(), 1..200usize).prop_map(|(at, many)| Damage::Repeat(at, many)),
    ];
    prop::collection::vec(one, 1..8)
}

fn damaged(answer: &[u8], damage: &[Damage]) -> Vec<u8> {
    let mut bytes = answer.to_vec();
    for one in damage {
        let length = bytes.len().max(1);
        let part = |at: usize, many: usize, all: &[u8]| {
            let at = (at % length).min(all.len());
            at..(at + many).min(all.len())
        };
        match *one {
            Damage::Flip(at, byte) => {
                bytes.iter_mut().skip(at % length).take(1).for_each(|there| *there = byte)
            }
            Damage::Truncate(at) => bytes.truncate(at % length),
            Damage::Remove(at, many) => drop(bytes.drain(part(at, many, &bytes))),
            Damage::Repeat(at, many) => {
                let part = part(at, many, &bytes);
                let again = bytes[part.clone()].to_vec();
                bytes.splice(part.start..part.start, again);
            }
        }
    }
    bytes
}

/// Every row, a last one without its newline included.
fn rows(answer: &[u8]) -> Vec<&[u8]> {
    answer.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Least number of rows that an answer must account for. Rows repeated in part can say the same in other bytes, which
/// makes them one.
fn least(answer: &[u8], damage: &[Damage]) -> usize {
    let repeats = damage.iter().any(|one| matches!(one, Damage::Repeat(..)));
    if repeats { 0 } else { rows(answer).into_iter().collect::<BTreeSet<_>>().len() }
}

/// The rows in another order, some of them twice.
fn shuffled(answer: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let twice = prop::collection::vec(prop::sample::select(rows(answer)), 0..10);
    twice
        .prop_flat_map(move |twice| Just([rows(answer), twice].concat()).prop_shuffle())
        .prop_map(|rows| rows.concat())
}

/// Whether every number of the record stands in this row: what is not 0 there is not 0 here.
fn stands_in(record: &JobRecord, row: &[u8]) -> bool {
    let row = String::from_utf8_lossy(row);
    let fields: Vec<&str> = row.strip_suffix('\n').unwrap_or(&row).split('\x1f').collect();
    let same =
        |field: &str, value: u64| field.trim_start_matches('0') == value.to_string().trim_start_matches('0');
    let time = |field: &str, time: Option<Epoch>| match time {
        Some(time) => field.trim_start_matches('0') == time.0.to_string(),
        None => ["", "Unknown", "None"].contains(&field),
    };
    let counts = |text: &str| text.contains(|c: char| ('1'..='9').contains(&c));
    let decimals_off = |text: &str| text.split('.').next().unwrap_or_default().to_owned();
    let mut alloc =
        fields.get(15).into_iter().flat_map(|list| list.split(',')).filter(|item| !item.is_empty());
    fields.len() == 16
        && same(fields[1], record.key.dbindex)
        && same(fields[2], record.job_id)
        && time(fields[6], Some(record.submit))
        && time(fields[7], record.eligible)
        && time(fields[8], record.start)
        && time(fields[9], record.end)
        && counts(&decimals_off(fields[10])) == (record.suspended_s > 0)
        && same(fields[11], record.elapsed_s)
        && same(fields[14], record.assoc_id.unwrap_or(0))
        && fields[15].is_empty() == record.alloc.is_empty()
        && alloc.all(|item| {
            let (name, value) = item.split_once('=').unwrap_or_default();
            let count = Tres::parse(name).ok().and_then(|tres| record.alloc.get(&tres));
            count.is_some_and(|count| counts(value) == (*count > 0))
        })
}

fn association_rows(observed: &Observed) -> usize {
    observed.accounts.values().map(|found| 1 + found.users.len()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_of_a_damaged_sacct_answer_is_read_or_rejected_and_none_becomes_zero(damage in damage()) {
        let answer = damaged(JOBS, &damage);
        let lines = sacct::parse_jobs(&answer, &lab());
        let accounted = lines.records.len() + lines.rejected;
        prop_assert!(least(&answer, &damage) <= accounted && accounted <= rows(&answer).len(), "{}", accounted);
        for record in &lines.records {
            prop_assert!(rows(&answer).iter().any(|row| stands_in(record, row)), "{:?}", record);
        }
    }

    #[test]
    fn a_truncated_sacct_answer_gives_the_records_before_the_cut(at in 0..JOBS.len()) {
        let whole = sacct::parse_jobs(JOBS, &lab());
        let lines = sacct::parse_jobs(&JOBS[..at], &lab());
        let complete = JOBS[..at].iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(lines.records.len(), complete);
        prop_assert_eq!(lines.rejected, rows(&JOBS[..at]).len() - complete);
        prop_assert!(lines.records.iter().all(|record| whole.records.contains(record)));
    }

    #[test]
    fn neither_the_order_of_rows_nor_repeated_rows_change_an_answer(
        jobs in shuffled(JOBS), shares in shuffled(SSHARE), associations in shuffled(ASSOC),
    ) {
        prop_assert_eq!(sacct::parse_jobs(&jobs, &lab()), sacct::parse_jobs(JOBS, &lab()));
        prop_assert_eq!(sshare::parse(&shares), sshare::parse(SSHARE));
        prop_assert_eq!(assoc::parse(&associations, &lab()).accounts, assoc::parse(ASSOC, &lab()).accounts);
    }

    #[test]
    fn every_row_of_a_damaged_assoc_answer_is_read_or_rejected(damage in damage()) {
        let answer = damaged(ASSOC, &damage);
        let observed = assoc::parse(&answer, &lab());
        let accounted = association_rows(&observed) + observed.rejected;
        prop_assert!(least(&answer, &damage) <= accounted && accounted <= rows(&answer).len(), "{}", accounted);
        for found in observed.accounts.values() {
            prop_assert!(found.account.is_root() == found.parent.is_none());
        }
    }

    #[test]
    fn a_truncated_answer_shows_no_account_otherwise_than_it_is(at in 0..ASSOC.len(), cut in 0..SSHARE.len()) {
        let whole = assoc::parse(ASSOC, &lab());
        for (name, found) in assoc::parse(&ASSOC[..at], &lab()).accounts {
            prop_assert_eq!(&found.row, &whole.accounts[&name].row);
            prop_assert!(found.users.iter().all(|user| whole.accounts[&name].users.contains(user)));
        }
        let whole = sshare::parse(SSHARE);
        prop_assert!(sshare::parse(&SSHARE[..cut]).iter().all(|(name, found)| whole[name] == *found));
    }

    #[test]
    fn no_bytes_at_all_make_a_parser_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400), damage in damage(),
    ) {
        let root = UserName::parse("root").unwrap();
        let real = [
            fixture!("scontrol-partition.out"), fixture!("scontrol-config.out"), fixture!("sacctmgr-qos.out"),
            fixture!("sreport.out"), fixture!("sacctmgr-config.out"), fixture!("sacct-suspended.out"),
        ];
        for answer in real.iter().map(|answer| damaged(answer, &damage)).chain([bytes]) {
            sacct::parse_jobs(&answer, &lab());
            sacct::parse_suspended(&answer, &lab());
            assoc::parse(&answer, &lab());
            modify::parse_echo(&answer);
            qos::parse(&answer);
            sshare::parse(&answer);
            sreport::parse(&answer, &lab());
            tables::parse_clusters(&answer);
            tables::parse_tres(&answer);
            tables::parse_admin_level(&answer, &root);
            tables::parse_version(&answer);
            tables::parse_database_configuration(&answer);
            scontrol::parse_partitions(&answer);
            scontrol::parse_ping(&answer);
            if let Some(found) = scontrol::parse_configuration(&answer) {
                let _typed = (found.decay_half_life_s(), found.calc_period_s(), found.accounting_storage_tres());
            }
        }
    }
}
