use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::core::report::MessageKind;
use crate::store::lock::lock_path;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The whole chain an operator is shown.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

fn refused(path: &Path) -> StoreError {
    Store::open(path).map(drop).unwrap_err()
}

/// A closed store with jobs on many pages.
fn filled() -> Place {
    let place = Place::new();
    let mut store = place.open();
    let records: Vec<JobRecord> = (1..=2000).map(|n| job(n, 100, Some(200))).collect();
    put(&mut store, &records);
    place
}

/// Runs `f` as a user to whom root's rights over files do not extend (the calling thread alone).
fn without_rights_over_files<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if nix::unistd::geteuid().is_root() {
                nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            }
            f()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_new_store_and_its_directory_are_for_their_owner_alone() {
    let place = Place::new();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, Some(200))]);
    assert_eq!(mode(place.path.parent().unwrap()), 0o700);
    for file in
        [&place.path, &lock_path(&place.path), &beside(&place.path, "-wal"), &beside(&place.path, "-shm")]
    {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert_eq!(store.path(), place.path);
}

#[test]
fn what_root_makes_in_the_service_users_directory_belongs_to_that_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    let place = Place::new();
    let directory = place.path.parent().unwrap();
    fs::create_dir(directory).unwrap();
    std::os::unix::fs::chown(directory, Some(4711), Some(4712)).unwrap();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, Some(200))]);
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4711, 4712), "{:?}", file.file_name());
    }
    assert_eq!(fs::read_dir(directory).unwrap().count(), 4);
}

#[test]
fn a_store_can_be_handed_to_another_thread() {
    let place = Place::new();
    let mut store = place.open();
    let thread = std::thread::spawn(move || put(&mut store, &[job(1, 100, Some(200))]).new);
    assert_eq!(thread.join().unwrap(), 1);
}

#[test]
fn a_commit_is_durable_when_the_call_returns() {
    let place = Place::new();
    let store = place.open();
    let number = |sql: &str| store.conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("PRAGMA synchronous"), 2, "FULL");
    assert_eq!(number("PRAGMA foreign_keys"), 1);
    let journal: String = store.conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(journal, "wal");
}

#[test]
fn a_second_writer_is_refused_and_told_who_has_the_store() {
    let place = Place::new();
    let first = place.open();
    let error = refused(&place.path);
    let StoreError::Held { path, holder } = &error else { panic!("{error}") };
    assert_eq!(path, &place.path);
    assert_eq!(holder.pid, Some(std::process::id()));
    let this = std::env::current_exe().unwrap();
    assert_eq!(holder.program, this.file_name().unwrap().to_string_lossy());
    let taken = fs::metadata(lock_path(&place.path)).unwrap().mtime();
    assert_eq!(holder.since, Some(Epoch(taken)));
    assert_eq!(error.class(), Class::Transient);
    let text = error.to_string();
    assert!(text.contains(&format!("(pid {}) since 20", std::process::id())), "{text}");
    assert!(text.contains("systemctl stop"), "{text}");
    drop(first);
    place.open();
}

#[test]
fn a_lock_file_that_says_nothing_still_refuses() {
    let place = Place::new();
    let _first = place.open();
    fs::write(lock_path(&place.path), [0xff, 0xfe]).unwrap();
    let text = refused(&place.path).to_string();
    assert!(text.contains("in use by a process that has not yet written its name"), "{text}");
}

#[test]
fn a_lock_file_left_behind_by_a_dead_process_refuses_nobody() {
    let place = Place::new();
    fs::create_dir(place.path.parent().unwrap()).unwrap();
    fs::write(lock_path(&place.path), "1 slurm-site-agent-with-a-long-name\n").unwrap();
    let _store = place.open();
    let text = fs::read_to_string(lock_path(&place.path)).unwrap();
    assert!(text.starts_with(&format!("{} ", std::process::id())) && text.ends_with('\n'), "{text:?}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn readers_see_what_is_committed_beside_a_writer_and_cannot_write() {
    let place = Place::new();
    assert!(matches!(Store::open_reader(&place.path), Err(StoreError::Absent { .. })));
    let mut writer = place.open();
    put(&mut writer, &[job(1, 100, Some(200))]);
    let mut reader = Store::open_reader(&place.path).unwrap();
    assert_eq!(jobs_in(&reader, 0, 5000).len(), 1);
    put(&mut writer, &[job(2, 100, Some(200))]);
    assert_eq!(jobs_in(&reader, 0, 5000).len(), 2);

    let put = reader.put_success("poll", Epoch(1)).unwrap_err();
    let acquire = reader.acquire(MessageKind::ComponentUsage, Epoch(1), 1).unwrap_err();
    for error in [put, acquire] {
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        assert_eq!(error.class(), Class::Refused);
    }
    drop(writer);
    assert_eq!(jobs_in(&reader, 0, 5000).len(), 2);
    drop(reader);
    assert_eq!(jobs_in(&Store::open_reader(&place.path).unwrap(), 0, 5000).len(), 2);
    place.open();
}

#[test]
fn a_visit_in_progress_sees_one_state_while_the_writer_goes_on() {
    // The whole ledger, and a window after the first end in it.
    for from in [0, 250] {
        let place = Place::new();
        let mut writer = place.open();
        put(&mut writer, &[job(501, 100, Some(200))]);
        let records: Vec<JobRecord> = (1..=500).map(|n| job(n, 100, None)).collect();
        put(&mut writer, &records);
        let reader = Store::open_reader(&place.path).unwrap();
        let mut seen = Vec::new();
        reader
            .visit_jobs(&cluster(), Window::new(Epoch(from), Epoch(5000)), &mut |shown| {
                if seen.is_empty() {
                    let ended: Vec<JobRecord> = (1..=500).map(|n| job(n, 100, Some(300))).collect();
                    put(&mut writer, &ended);
                }
                seen.push(shown.key.dbindex);
            })
            .unwrap();
        seen.sort_unstable();
        let all = if from == 0 { 501 } else { 500 };
        assert_eq!(seen, (1..=all).collect::<Vec<u64>>(), "none missed or shown twice");
    }
}

#[test]
fn a_store_of_a_newer_program_is_refused_and_left_as_it_is() {
    let place = filled();
    rusqlite::Connection::open(&place.path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&place.path).unwrap();
    for error in [refused(&place.path), Store::open_reader(&place.path).map(drop).unwrap_err()] {
        assert!(matches!(error, StoreError::Newer { found: 99, known: schema::NEWEST, .. }), "{error}");
        assert_eq!(error.class(), Class::Misconfigured);
        assert!(error.to_string().contains("install the newer"), "{error}");
    }
    assert_eq!(fs::read(&place.path).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_refused_and_left_as_it_is() {
    for sql in ["CREATE TABLE photos (id)", "PRAGMA application_id = 7; CREATE TABLE photos (id)"] {
        let place = Place::new();
        fs::create_dir(place.path.parent().unwrap()).unwrap();
        rusqlite::Connection::open(&place.path).unwrap().execute_batch(sql).unwrap();
        let before = fs::read(&place.path).unwrap();
        let error = refused(&place.path);
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert_eq!(error.class(), Class::Misconfigured);
        assert_eq!(fs::read(&place.path).unwrap(), before);
    }
}

#[test]
fn a_file_that_a_crash_left_empty_becomes_a_store() {
    let place = Place::new();
    fs::create_dir(place.path.parent().unwrap()).unwrap();
    fs::write(&place.path, "").unwrap();
    assert!(matches!(Store::open_reader(&place.path), Err(StoreError::Absent { .. })));
    let mut store = place.open();
    put(&mut store, &[job(1, 100, Some(200))]);
}

#[test]
fn a_damaged_file_is_refused_with_what_to_do_next() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        ("no database at all", |bytes| bytes[..16].copy_from_slice(b"Dear operator,\n\n")),
        ("a page overwritten", |bytes| bytes[3 * 8192..4 * 8192].fill(0x55)),
        ("a page of zeros in the middle", |bytes| {
            let middle = bytes.len() / 2 / 8192 * 8192;
            bytes[middle..middle + 8192].fill(0);
        }),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2 / 8192 * 8192)),
        ("cut inside a page", |bytes| bytes.truncate(bytes.len() / 3)),
    ];
    for (what, damage) in damages {
        let place = filled();
        let mut bytes = fs::read(&place.path).unwrap();
        damage(&mut bytes);
        fs::write(&place.path, &bytes).unwrap();
        let error = refused(&place.path);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error}");
        assert_eq!(error.class(), Class::Corrupt, "{what}");
        assert!(error.to_string().contains("keep the file (mv "), "{what}: {error}");
    }
}

#[test]
fn the_full_check_finds_an_index_that_leads_astray() {
    let place = filled();
    place.open().integrity().unwrap();
    let conn = rusqlite::Connection::open(&place.path).unwrap();
    let index = |from: &str, to: &str| {
        format!(
            "PRAGMA writable_schema = ON; \
             UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = 'jobs_ended'; \
             PRAGMA writable_schema = RESET;"
        )
    };
    conn.execute_batch(&index("ended)", "started)")).unwrap();
    conn.execute_batch(
        "INSERT INTO jobs SELECT 99999, cluster, 99999, 99999, submit, eligible, 150, 250, suspended_s, elapsed_s, \
         account, user, state, part, qos, assoc_id, alloc, runaway FROM jobs WHERE seq = 1",
    )
    .unwrap();
    conn.execute_batch(&index("started)", "ended)")).unwrap();
    drop(conn);
    let store = place.open();
    let error = store.integrity().unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { detail, .. } if detail.contains("jobs_ended")), "{error}");
    assert_eq!(error.class(), Class::Corrupt);
}

#[test]
fn a_row_that_this_program_did_not_write_is_an_error_and_never_a_default() {
    let cases = [
        ("UPDATE jobs SET alloc = 'cpu=many'", "alloc"),
        ("UPDATE jobs SET alloc = 'cpu'", "alloc"),
        ("UPDATE jobs SET alloc = 'cpu=-1'", "alloc"),
        ("UPDATE jobs SET alloc = 'cpu=1,,=2'", "alloc"),
    ];
    for (sql, what) in cases {
        let place = Place::new();
        let mut store = place.open();
        put(&mut store, &[job(1, 100, Some(200))]);
        store.conn.execute_batch(sql).unwrap();
        let error = store.visit_jobs(&cluster(), Window::new(Epoch(0), Epoch(900)), &mut |_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Row { .. }), "{what}: {error}");
        assert_eq!(error.class(), Class::Corrupt);
    }
    let store = Place::new();
    let store = store.open();
    store.conn.execute_batch("INSERT INTO snapshots VALUES ('waldur', 1, 1, '{\"policies\":[]')").unwrap();
    assert!(matches!(store.snapshot(&source()), Err(StoreError::Row { .. })));
}

#[test]
fn a_directory_that_cannot_be_made_or_written_is_named() {
    let error = refused(Path::new("/proc/slurm-site-agent/agent.db"));
    assert!(matches!(error, StoreError::Place { .. }), "{error}");
    assert_eq!(error.class(), Class::Misconfigured);
    assert!(chain(&error).contains("/proc/slurm-site-agent failed"), "{}", chain(&error));

    let place = Place::new();
    let directory = place.path.parent().unwrap();
    fs::create_dir(directory).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(directory.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let error = without_rights_over_files(|| refused(&place.path));
    assert!(matches!(error, StoreError::Place { doing: "locking", .. }), "{error}");
    assert_eq!(error.class(), Class::Misconfigured);
    assert!(chain(&error).contains("Permission denied"), "{}", chain(&error));
}

#[test]
fn a_store_that_may_not_be_read_or_written_is_not_taken_for_an_absent_one() {
    let place = filled();
    for directory in place.path.ancestors().skip(1).take(2) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o000)).unwrap();
    let (writer, reader) = without_rights_over_files(|| {
        (refused(&place.path), Store::open_reader(&place.path).map(drop).unwrap_err())
    });
    for error in [writer, reader] {
        assert!(!matches!(error, StoreError::Absent { .. }), "{error}");
        assert_eq!(error.class(), Class::Misconfigured, "{}", chain(&error));
    }
}

#[test]
fn a_directory_in_place_of_the_file_is_refused() {
    let place = Place::new();
    fs::create_dir_all(&place.path).unwrap();
    let error = refused(&place.path);
    assert_eq!(error.class(), Class::Misconfigured, "{}", chain(&error));
}

#[test]
fn a_store_that_was_removed_or_replaced_while_it_was_open_takes_nothing_more() {
    for replaced in [false, true] {
        let place = Place::new();
        let mut store = place.open();
        put(&mut store, &[job(1, 100, Some(200))]);
        let aside = beside(&place.path, ".aside");
        fs::rename(&place.path, &aside).unwrap();
        if replaced {
            fs::copy(&aside, &place.path).unwrap();
        }
        let name = cluster();
        let error = store.put_collection(&collection(&name, &[job(2, 100, Some(200))])).unwrap_err();
        assert!(matches!(error, StoreError::Replaced { .. }), "{error}");
        assert_eq!(error.class(), Class::Corrupt);
        fs::rename(&aside, &place.path).unwrap();
        put(&mut store, &[job(3, 100, Some(200))]);
        assert_eq!(jobs_in(&store, 0, 5000).len(), 2, "the file is back");
    }
}

#[test]
fn when_the_disk_is_full_nothing_of_a_collection_is_stored_and_room_is_enough_to_go_on() {
    let place = Place::new();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, Some(200))]);
    let pages: i64 = store.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.conn.pragma_update_and_check(None, "max_page_count", pages + 10, |_| Ok(())).unwrap();
    let many: Vec<JobRecord> = (2..=5000).map(|n| job(n, 100, Some(200))).collect();
    let name = cluster();
    let large = Collection { watermark: Some(Epoch(7)), ..collection(&name, &many) };
    let error = store.put_collection(&large).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(error.class(), Class::Transient);
    assert!(error.to_string().contains("Free space"), "{error}");
    assert_eq!(jobs_in(&store, 0, 5000).len(), 1);
    assert_eq!(store.watermark(&name).unwrap(), None);
    assert_eq!(store.last_collections(9).unwrap().len(), 1);

    store.conn.pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(())).unwrap();
    assert_eq!(store.put_collection(&large).unwrap().new, 4999);
    assert_eq!(changed_after(&store, 1).first(), Some(&(2, 2)), "no seq was lost on the way");
}

#[test]
fn network_file_systems_are_known_by_their_numbers() {
    for (magic, name) in [
        (0x6969, Some("NFS")),
        (0xff53_4d42, Some("CIFS")),
        (-11_317_950, Some("CIFS")),
        (0x0bd0_0bd0, Some("Lustre")),
        (0x4750_4653, Some("GPFS")),
        (0xef53, None),      // ext4
        (0x5846_5342, None), // XFS
        (0x0102_1994, None), // tmpfs
        (0x794c_7630, None), // overlayfs
    ] {
        assert_eq!(place::network_file_system(magic), name, "{magic:#x}");
    }
}

/// A file as the program wrote it that knew only the first `steps` of the schema, with the given rows.
fn written_by_schema(steps: usize, rows: &str) -> Place {
    let place = Place::new();
    fs::create_dir(place.path.parent().unwrap()).unwrap();
    let conn = rusqlite::Connection::open(&place.path).unwrap();
    conn.execute_batch("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL").unwrap();
    conn.execute_batch(&schema::STEPS[..steps].concat()).unwrap();
    conn.execute_batch(rows).unwrap();
    conn.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    conn.pragma_update(None, "user_version", steps as i64).unwrap();
    place
}

#[test]
fn a_store_of_every_older_schema_is_brought_up_to_date_with_all_that_is_in_it() {
    let columns = "seq, cluster, dbindex, job_id, submit, eligible, started, ended, suspended_s, elapsed_s, account, \
         user, state, part, qos, assoc_id, alloc, runaway";
    let rows = format!(
        "INSERT INTO clusters VALUES (1, 'hpc', 4000), (2, 'other', NULL);
         INSERT INTO counters VALUES ('seq', 9), ('generation', 3);
         INSERT INTO jobs ({columns}) VALUES
             (3, 1, 1, 1, 90, 91, 100, 200, 0, 100, 'bio42', 'alice', 'COMPLETED', 'normal', 'normal', 7, \
              'billing=4,cpu=4,mem=4096', 0),
             (5, 1, 2, 2, 90, 91, 100, NULL, 0, 5, 'bio42', 'alice', 'RUNNING', 'normal', 'normal', 7, \
              'billing=4,cpu=4,mem=4096', 1),
             (9, 1, -1, 3, 90, NULL, 100, 300, 30, 5, '', 'bio42', 'a|b' || char(0) || 'é', 'normal', '', NULL, '', 0),
             (4, 2, 1, 1, 90, 91, 100, 200, 0, 100, 'bio42', 'bob', 'COMPLETED', 'normal', 'normal', 7, 'cpu=1', 0);
         INSERT INTO suspended VALUES (1, 150, -1, 20);
         INSERT INTO marks VALUES ('ledger_from:hpc', 10);
              INSERT INTO owned_submit VALUES ('bio42');"
    );
    // From the sixth step on jobs name their texts by number, and these rows could not have been written.
    for steps in 1..6 {
        let place = written_by_schema(steps, &rows);
        let found = steps as i64;
        let error = Store::open_reader(&place.path).unwrap_err();
        assert!(matches!(error, StoreError::Older { found: told, .. } if told == found), "{error}");
        let mut store = place.open();
        let odd = JobRecord {
            key: JobKey { cluster: cluster(), dbindex: u64::MAX },
            job_id: 3,
            eligible: None,
            suspended_s: 30,
            elapsed_s: 5,
            account: "".into(),
            user: "bio42".into(),
            state: "a|b\0é".into(),
            qos: "".into(),
            assoc_id: None,
            alloc: TresCounts::new().into(),
            ..job(3, 100, Some(300))
        };
        assert_eq!(jobs_in(&store, 0, 1000), [job(1, 100, Some(200)), odd]);
        assert_eq!(store.runaways(&cluster()).unwrap(), [job(2, 100, None)]);
        assert_eq!(changed_after(&store, 0), [(3, 1), (9, u64::MAX)]);
        assert_eq!(store.suspended_before(&cluster(), Window::new(Epoch(0), Epoch(999))).unwrap().len(), 1);
        assert_eq!(store.watermark(&cluster()).unwrap(), Some(Epoch(4000)));
        assert_eq!(store.last_success("ledger_from:hpc").unwrap(), Some(Epoch(10)));
        // Another incarnation of a stored job is still known as one, and the next change comes after all others.
        let moved = JobRecord { job_id: 1, ..job(77, 100, Some(400)) };
        assert_eq!(put(&mut store, &[moved]), Collected { new: 1, rekeyed: 1, ..Collected::default() });
        assert_eq!(changed_after(&store, 9), [(10, 77)]);
        let own = store.own_values().unwrap();
        let own: Vec<String> =
            own.iter().map(|(key, own)| format!("{} {} {own:?}", key.account, key.field)).collect();
        let value = "Own { before: Limit(Cleared), set: Limit(At(0)), earlier: None }";
        assert_eq!(own, [format!("bio42 GrpSubmitJobs {value}")]);
        store.put_report("cycle", &1, Epoch(5)).unwrap();
        store.integrity().unwrap();
        drop(store);
        assert_eq!(
            Store::open_reader(&place.path).unwrap().last_report("cycle").unwrap(),
            Some((1, Epoch(5)))
        );
    }
}

#[test]
fn totals_of_an_older_schema_are_added_up_again_when_they_are_wanted() {
    let rows = "INSERT INTO clusters VALUES (1, 'hpc', 4000);
         INSERT INTO names VALUES (1, 'bio42'), (2, 'alice'), (3, 'COMPLETED'), (4, 'normal');
         INSERT INTO jobs VALUES (1, 1, 1, 1, 90, 91, 100, 200, 0, 100, 1, 2, 3, 4, 4, 7, 'billing=4,cpu=4,mem=4096', 0);
         INSERT INTO totals_windows VALUES (1, 1, 0, 1000, 1, 0, 4000);
         INSERT INTO totals VALUES (1, 1, 2, 'billing=400,cpu=400,mem=409600');";
    for steps in 6..8 {
        let place = written_by_schema(steps, rows);
        let mut store = place.open();
        let windows = BTreeSet::from([Window::new(Epoch(0), Epoch(1000))]);
        assert_eq!(store.totals(&cluster(), &windows).unwrap().len(), 0);
        let kept = store.keep_totals(&cluster(), &windows, Epoch(5000)).unwrap();
        assert_eq!(
            (kept.before.len(), kept.added),
            (0, windows.clone()),
            "as in a new store: nothing to be told"
        );
        let total = &store.totals(&cluster(), &windows).unwrap()[windows.first().unwrap()];
        assert_eq!((total.jobs, total.get("bio42", "alice", &Tres::cpu())), (1, 400));
        store.integrity().unwrap();
    }
}

#[test]
fn room_of_removed_jobs_is_used_again_and_given_back_when_that_is_asked_for() {
    let place = Place::new();
    let mut store = place.open();
    let records =
        |first: u64| -> Vec<JobRecord> { (first..first + 4000).map(|n| job(n, 100, Some(200))).collect() };
    put(&mut store, &records(1));
    put(&mut store, &records(4001).into_iter().map(|job| JobRecord { end: None, ..job }).collect::<Vec<_>>());
    let windows = BTreeSet::from([Window::new(Epoch(0), Epoch(1000))]);
    store.keep_totals(&cluster(), &windows, Epoch(0)).unwrap();
    let pages =
        |store: &Store| store.conn.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap();
    let (all, changed) = (pages(&store), changed_after(&store, 4000));
    assert_eq!(changed.len(), 4000);
    let keep = Retention { jobs_s: 0, history_s: 0, oldest_needed: Epoch(i64::MAX) };
    assert_eq!(store.prune(Epoch(10_000), keep).unwrap().jobs, 4000);
    let free = store.free_bytes().unwrap();
    assert!(free > 100_000, "{free}");
    // As many again find room where those were.
    put(&mut store, &records(8001));
    assert!(pages(&store) <= all + all / 10, "{} and {all} pages", pages(&store));
    assert_eq!(store.prune(Epoch(10_000), keep).unwrap().jobs, 4000);
    let open = store.open_jobs(&cluster()).unwrap();
    let compacted = store.compact().unwrap();
    assert!(compacted.bytes_after + free / 2 < compacted.bytes_before, "{compacted:?}");
    assert_eq!(fs::metadata(&place.path).unwrap().len(), compacted.bytes_after);
    assert_eq!(mode(&place.path), 0o600);
    assert_eq!(store.free_bytes().unwrap(), 0);
    store.integrity().unwrap();
    assert_eq!((store.open_jobs(&cluster()).unwrap(), changed_after(&store, 4000)), (open, changed));
    put(&mut store, &records(12_001));
    drop(store);
    assert_eq!(jobs_in(&place.open(), 0, 1000).len(), 8000);
    let mut reader = Store::open_reader(&place.path).unwrap();
    assert!(matches!(reader.compact(), Err(StoreError::ReadOnly { .. })));
}

#[test]
fn the_holder_of_a_store_is_told_without_touching_its_lock() {
    let place = Place::new();
    assert_eq!(Store::holder(&place.path), None);
    let store = place.open();
    assert_eq!(Store::holder(&place.path).unwrap().pid, Some(std::process::id()));
    drop(store);
    assert_eq!(Store::holder(&place.path), None, "the file is still there, the lock is not");
    assert!(lock_path(&place.path).exists());
    place.open();
}
