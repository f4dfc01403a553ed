use proptest::prelude::*;

use super::*;
use crate::core::job::JobKey;
use crate::core::name::ClusterName;
use crate::core::tres::TresCounts;

fn job(start: i64, end: Option<i64>, suspended_s: u64) -> JobRecord {
    JobRecord {
        key: JobKey { cluster: ClusterName::parse("lab").unwrap(), dbindex: 1 },
        job_id: 1,
        account: "bio".into(),
        user: "alice".into(),
        state: "COMPLETED".into(),
        submit: Epoch(start - 5),
        eligible: Some(Epoch(start - 5)),
        start: Some(Epoch(start)),
        end: end.map(Epoch),
        suspended_s,
        elapsed_s: 0,
        partition: "debug".into(),
        qos: "normal".into(),
        assoc_id: Some(2),
        alloc: [("cpu", 2), ("billing", 2), ("mem", 100), ("energy", 77)]
            .into_iter()
            .map(|(name, n)| (Tres::parse(name).unwrap(), n))
            .collect::<TresCounts>()
            .into(),
    }
}

fn window(from: i64, until: i64) -> Window {
    Window::new(Epoch(from), Epoch(until))
}

#[test]
fn suspended_seconds_leave_cpu_only_and_only_on_their_side_of_the_edge() {
    // The worked example of a real 22.05: billing 2, from 05:09:46 over 06:00, suspended 05:12:53 to 06:01:17.
    let hour = 5 * 3600;
    let job = job(hour + 586, Some(hour + 3700), 2904);
    let key = job.key.clone();
    let edges = SuspensionEdges::new(&[SuspendedBefore { key, edge: Epoch(hour + 3600), seconds: 2827 }]);
    let (used, exact) = job_usage(&job, window(hour, hour + 3600), Epoch(99999), Counting::Once, &edges);
    assert!(exact);
    assert_eq!(used.get(&Tres::billing()), 6028);
    assert_eq!(used.get(&Tres::cpu()), 374);
    assert_eq!(used.get(&Tres::parse("energy").unwrap()), 0);
}

#[test]
fn an_unknown_split_of_a_suspension_is_said_and_counts_as_not_suspended() {
    let job = job(1000, Some(9000), 100);
    let (used, exact) =
        job_usage(&job, window(0, 3600), Epoch(9999), Counting::Once, &SuspensionEdges::default());
    assert!(!exact);
    assert_eq!(used.get(&Tres::cpu()), 2 * 2600);
    assert!(needs_suspension_split(&job, Epoch(3600), Epoch(9999)));
}

#[test]
fn a_piece_of_a_resized_job_counts_from_when_it_was_made() {
    let mut piece = job(1000, Some(2000), 0);
    piece.submit = Epoch(1600);
    let edges = SuspensionEdges::default();
    let used = |counting| job_usage(&piece, window(0, 5000), Epoch(5000), counting, &edges).0;
    assert_eq!(used(Counting::Once).get(&Tres::billing()), 2 * 400);
    assert_eq!(used(Counting::SreportEqual).get(&Tres::billing()), 2 * 1000);
}

#[test]
fn a_running_job_counts_up_to_now_and_a_pending_one_not_at_all() {
    let edges = SuspensionEdges::default();
    let (used, _) = job_usage(&job(1000, None, 0), window(0, 5000), Epoch(1500), Counting::Once, &edges);
    assert_eq!(used.get(&Tres::cpu()), 1000);
    let mut pending = job(1000, None, 0);
    pending.start = None;
    assert!(job_usage(&pending, window(0, 5000), Epoch(1500), Counting::Once, &edges).0.is_empty());
}

proptest! {
    #[test]
    fn split_windows_add_up(
        start in 0i64..10_000, length in 0i64..10_000, edge in 0i64..20_000, suspended in 0u64..100,
    ) {
        let job = job(start, Some(start + length), suspended.min(length as u64));
        let held = job.held(Epoch(30_000)).unwrap();
        let known: Vec<SuspendedBefore> = held
            .contains(Epoch(edge))
            .then(|| SuspendedBefore { key: job.key.clone(), edge: Epoch(edge), seconds: job.suspended_s.min((edge - start) as u64) })
            .into_iter()
            .collect();
        let edges = SuspensionEdges::new(&known);
        let used = |from, until| job_usage(&job, window(from, until), Epoch(30_000), Counting::Once, &edges).0;
        let mut parts = used(0, edge);
        parts.merge(&used(edge, 30_000));
        prop_assert_eq!(parts, used(0, 30_000));
    }

    #[test]
    fn the_order_of_records_does_not_matter(jobs in prop::collection::vec((0i64..5000, 0i64..5000), 0..20)) {
        let total = |jobs: &mut dyn Iterator<Item = &(i64, i64)>| {
            let mut adding = Adding::default();
            for (start, length) in jobs {
                adding.add(&job(*start, Some(start + length), 0), window(100, 4000), Epoch(9000), Counting::Once, &SuspensionEdges::default());
            }
            adding.usage()
        };
        prop_assert_eq!(total(&mut jobs.iter()), total(&mut jobs.iter().rev()));
    }
}

fn use_of(users: &BTreeMap<String, Vec<u128>>, tres: &[&str]) -> Option<AccountUse> {
    let more = users.iter().map(|(user, amounts)| (user.as_str(), amounts.as_slice()));
    match AccountUse::changed(None, tres, more) {
        Changed::Use(used) => Some(used),
        Changed::Nothing => None,
        Changed::Negative => panic!("nothing was taken off"),
    }
}

fn amounts_of(used: Option<&AccountUse>) -> BTreeMap<(String, String), u128> {
    let mut found = BTreeMap::new();
    let Some(used) = used else { return found };
    let tres = used.tres();
    used.each_user(|user, amounts| {
        for (tres, amount) in tres.iter().zip(amounts).filter(|(_, amount)| **amount > 0) {
            found.insert((user.to_owned(), (*tres).to_owned()), *amount);
        }
    });
    found
}

const TRES: [&str; 4] = ["mem", "cpu", "gres/gpu:a100", "billing"];

fn users() -> impl Strategy<Value = BTreeMap<String, Vec<u128>>> {
    let amount = prop_oneof![Just(0), 0u128..300, 0u128..1 << 100];
    prop::collection::btree_map("[a-cé]{0,3}", prop::collection::vec(amount, TRES.len()), 0..6)
}

proptest! {
    #[test]
    fn what_an_account_used_comes_back_from_its_bytes_as_it_was(users in users()) {
        let used = use_of(&users, &TRES);
        let mut expected = BTreeMap::new();
        for (user, amounts) in &users {
            for (tres, amount) in TRES.iter().zip(amounts).filter(|(_, amount)| **amount > 0) {
                expected.insert((user.clone(), (*tres).to_owned()), *amount);
            }
        }
        prop_assert_eq!(amounts_of(used.as_ref()), expected);
        if let Some(used) = used {
            prop_assert_eq!(AccountUse::read(used.bytes()), Ok(used.clone()));
        }
    }

    #[test]
    fn what_is_added_and_taken_off_again_leaves_the_very_same_bytes(first in users(), second in users()) {
        let reversed: Vec<&str> = TRES.iter().rev().copied().collect();
        let known = use_of(&first, &TRES);
        let back = |amounts: &Vec<u128>| amounts.iter().rev().map(|a| 0u128.wrapping_sub(*a)).collect::<Vec<_>>();
        let off: BTreeMap<String, Vec<u128>> = second.iter().map(|(user, a)| (user.clone(), back(a))).collect();
        let more = second.iter().map(|(user, amounts)| (user.as_str(), amounts.as_slice()));
        let sum = AccountUse::changed(known.as_ref(), &TRES, more);
        let less = off.iter().map(|(user, amounts)| (user.as_str(), amounts.as_slice()));
        let after = match &sum {
            Changed::Use(sum) => AccountUse::changed(Some(sum), &reversed, less),
            other => other.clone(),
        };
        prop_assert_eq!(after, known.map_or(Changed::Nothing, Changed::Use));
    }

    #[test]
    fn bytes_that_were_damaged_are_refused_or_are_another_use_never_a_part_of_one(
        users in users(), place in 0usize..400, byte in any::<u8>(), cut in 0usize..400,
    ) {
        let Some(used) = use_of(&users, &TRES) else { return Ok(()) };
        let mut bytes = used.bytes().to_vec();
        prop_assert!(AccountUse::read(&bytes[..cut % bytes.len()]).is_err());
        bytes.push(0);
        prop_assert!(AccountUse::read(&bytes).is_err());
        bytes.pop();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(other) = AccountUse::read(&bytes) {
            // One form for each use: what can be read is written the same way.
            let again = amounts_of(Some(&other));
            let mut users: BTreeMap<String, Vec<u128>> = BTreeMap::new();
            let tres = other.tres();
            for ((user, name), amount) in &again {
                let place = tres.iter().position(|tres| tres == name).unwrap();
                users.entry(user.clone()).or_insert_with(|| vec![0; tres.len()])[place] = *amount;
            }
            prop_assert_eq!(use_of(&users, &tres).unwrap(), other);
        }
    }
}

#[test]
fn more_taken_off_than_there_is_is_said() {
    let known = use_of(&BTreeMap::from([("alice".to_owned(), vec![5])]), &["cpu"]).unwrap();
    let off = [0u128.wrapping_sub(6)];
    let of = |user| AccountUse::changed(Some(&known), &["cpu"], [(user, off.as_slice())].into_iter());
    assert_eq!((of("alice"), of("bob")), (Changed::Negative, Changed::Negative));
}

#[test]
fn bytes_of_another_form_are_refused_with_the_reason() {
    let refused = |bytes: &[u8]| AccountUse::read(bytes).unwrap_err().to_string();
    let all = |parts: &[&[u8]]| parts.concat();
    let known = |parts: &[&[u8]]| AccountUse::read(&all(parts)).is_ok();
    assert!(known(&[&[1, 1, 3], b"cpu", &[1, 1], b"u", &[7]]));
    for (parts, reason) in [
        (&[&b""[..]][..], "version"),
        (&[b"billing=2,cpu=2"], "version"),
        (&[&[2, 1, 3], b"cpu", &[1, 1], b"u", &[7]], "version"),
        (&[&[1, 1, 3], b"cpu", &[1, 1], b"u", &[0]], "a user has no amount"),
        (&[&[1, 0, 0]], "a TRES has no amount"),
        (&[&[1, 1, 3], b"cpu", &[0]], "a TRES has no amount"),
        (&[&[1, 1, 3], b"cpu", &[1, 1], b"u", &[0x87, 0]], "longer than it needs"),
        (&[&[1, 1, 3], b"cpu", &[1, 1], b"u", &[0xff; 18], &[0x7f]], "too large"),
        (&[&[1, 1, 3], b"cpu", &[1, 1], b"\xff", &[7]], "not UTF-8"),
        (&[&[1, 1, 3], b"cpu", &[2, 1], b"u", &[7]], "cut off"),
        (&[&[1, 1, 3], b"cpu", &[2, 1], b"v", &[7, 1], b"u", &[7]], "users are not in order"),
        (&[&[1, 2, 3], b"mem", &[3], b"cpu", &[1, 1], b"u", &[7, 7]], "TRES are not in order"),
        (&[&[1, 1, 3], b"cpu", &[1, 1], b"u", &[7, 7]], "something follows"),
    ] {
        let said = refused(&all(parts));
        assert!(said.contains(reason), "{said}: {reason}");
    }
    let mut usage = Usage::default();
    let odd = all(&[&[1, 1, 3], b"c=u", &[1, 1], b"u", &[7]]);
    assert!(usage.put("bio".into(), &odd).unwrap_err().to_string().contains("the name of a TRES"));
}
