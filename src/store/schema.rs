//! The tables, as steps that only go forward. `user_version` counts the steps a file has seen.
//!
//! A released step never changes: a new table or column is a new step at the end. Times are seconds since 1970;
//! unsigned 64-bit numbers are stored as the bit pattern of a signed one; bodies are JSON of core types.

use rusqlite::Transaction;

/// Marks a file as a store of this program: "SSA1".
pub(super) const APPLICATION_ID: i64 = 0x5353_4131;

/// Every step. The n-th (from 1) brings a file from `user_version` n - 1 to n.
pub(super) const STEPS: [&str; 9] =
    [FIRST, REPORTS, AMIE, SOURCE_QUOTAS, AMIE_STORAGE, SCALE, OWN_VALUES, TOTALS_OF_ACCOUNTS, FEWER_INDEXES];

/// The newest schema this program knows.
pub(super) const NEWEST: i64 = STEPS.len() as i64;

/// `seq` of a job is the row's own key: a changed job moves to the end, so that whoever follows changes reads one
/// range, and a first load only ever appends. Nothing else is indexed than what is looked up.
const FIRST: &str = "
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE clusters (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    watermark INTEGER
) STRICT;

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    cluster INTEGER NOT NULL REFERENCES clusters (id),
    dbindex INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    submit INTEGER NOT NULL,
    eligible INTEGER,
    started INTEGER,
    ended INTEGER,
    suspended_s INTEGER NOT NULL,
    elapsed_s INTEGER NOT NULL,
    account TEXT NOT NULL,
    user TEXT NOT NULL,
    state TEXT NOT NULL,
    part TEXT NOT NULL,
    qos TEXT NOT NULL,
    assoc_id INTEGER,
    alloc TEXT NOT NULL,
    runaway INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX jobs_key ON jobs (cluster, dbindex);
CREATE UNIQUE INDEX jobs_incarnation ON jobs (cluster, job_id, submit);
CREATE INDEX jobs_ended ON jobs (cluster, ended);
CREATE INDEX jobs_runaway ON jobs (cluster) WHERE runaway = 1;

CREATE TABLE suspended (
    cluster INTEGER NOT NULL REFERENCES clusters (id),
    edge INTEGER NOT NULL,
    dbindex INTEGER NOT NULL,
    seconds INTEGER NOT NULL,
    PRIMARY KEY (cluster, edge, dbindex)
) STRICT, WITHOUT ROWID;
CREATE INDEX suspended_job ON suspended (cluster, dbindex);

CREATE TABLE collections (
    id INTEGER PRIMARY KEY,
    cluster INTEGER NOT NULL REFERENCES clusters (id),
    at INTEGER NOT NULL,
    window_from INTEGER NOT NULL,
    window_until INTEGER NOT NULL,
    new INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    unchanged INTEGER NOT NULL,
    rekeyed INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    reject_samples TEXT NOT NULL,
    complete INTEGER NOT NULL
) STRICT;

CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE marks (
    name TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshots (
    source TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    cycle INTEGER NOT NULL,
    account TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX decisions_account ON decisions (account);

CREATE TABLE commands (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    account TEXT,
    type TEXT NOT NULL,
    issued INTEGER NOT NULL,
    received INTEGER NOT NULL,
    state TEXT NOT NULL,
    settled INTEGER,
    body TEXT NOT NULL,
    verdict TEXT
) STRICT;
CREATE INDEX commands_pending ON commands (issued) WHERE state = 'pending';
CREATE INDEX commands_standing ON commands (source, account, type, issued) WHERE state = 'done';

CREATE TABLE forgotten_commands (
    uuid TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE intents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    body TEXT NOT NULL,
    argv TEXT NOT NULL,
    before TEXT,
    outcome TEXT,
    looked INTEGER,
    settled INTEGER
) STRICT;
CREATE INDEX intents_open ON intents (id) WHERE settled IS NULL;

CREATE TABLE intent_accounts (
    account TEXT NOT NULL,
    intent INTEGER NOT NULL REFERENCES intents (id) ON DELETE CASCADE,
    PRIMARY KEY (account, intent)
) STRICT, WITHOUT ROWID;
CREATE INDEX intent_accounts_intent ON intent_accounts (intent);

CREATE TABLE resets (
    account TEXT NOT NULL,
    source TEXT NOT NULL,
    policy TEXT NOT NULL,
    period TEXT NOT NULL,
    at INTEGER NOT NULL,
    how TEXT NOT NULL,
    PRIMARY KEY (account, source, policy, period)
) STRICT, WITHOUT ROWID;

CREATE TABLE owned_limits (
    account TEXT NOT NULL,
    limit_type TEXT NOT NULL,
    tres TEXT NOT NULL,
    PRIMARY KEY (account, limit_type, tres)
) STRICT, WITHOUT ROWID;

CREATE TABLE owned_submit (
    account TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'leased', 'dead')),
    enqueued INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    lease INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    tried INTEGER,
    error TEXT NOT NULL DEFAULT '',
    body TEXT NOT NULL,
    UNIQUE (key, state)
) STRICT;
CREATE INDEX outbox_queue ON outbox (kind, state);

CREATE TABLE delivered (
    key TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    certain INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE held_plan (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    hash TEXT NOT NULL,
    summary TEXT NOT NULL,
    since INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
";

/// The last report of each kind, for readers.
const REPORTS: &str = "
CREATE TABLE reports (
    kind TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// The ledger of AMIE records: one row per kind, resource, LocalRecordID and version; `newest` is 1 for the version that
/// holds. Compute records that waited in the outbox are made again from the jobs, under the same ids.
const AMIE: &str = "
CREATE TABLE amie_records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    resource TEXT NOT NULL,
    local_record_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    cluster TEXT,
    dbindex INTEGER,
    project TEXT NOT NULL,
    username TEXT NOT NULL,
    happened INTEGER NOT NULL,
    made INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'accepted', 'loaded', 'failed', 'superseded')),
    not_before INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    sent INTEGER,
    accepted INTEGER,
    settled INTEGER,
    loaded_charge TEXT,
    error TEXT NOT NULL DEFAULT '',
    cleared INTEGER,
    body TEXT NOT NULL,
    UNIQUE (local_record_id, resource, kind, version)
) STRICT;
CREATE UNIQUE INDEX amie_newest ON amie_records (local_record_id, resource, kind) WHERE newest = 1;
CREATE INDEX amie_job ON amie_records (cluster, dbindex) WHERE newest = 1 AND dbindex IS NOT NULL;
CREATE INDEX amie_due ON amie_records (kind, not_before) WHERE newest = 1 AND state IN ('pending', 'sent');
CREATE INDEX amie_open ON amie_records (state) WHERE newest = 1 AND state IN ('accepted', 'failed');
CREATE INDEX amie_happened ON amie_records (happened) WHERE newest = 1;

CREATE TABLE amie_waiting (
    cluster TEXT NOT NULL,
    dbindex INTEGER NOT NULL,
    reason TEXT NOT NULL,
    what TEXT NOT NULL,
    ended INTEGER,
    PRIMARY KEY (cluster, dbindex)
) STRICT, WITHOUT ROWID;

CREATE TABLE amie_failures (
    failed_record_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    resource TEXT NOT NULL,
    local_record_id TEXT NOT NULL,
    error TEXT NOT NULL,
    seen INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE amie_words (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    body TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT, WITHOUT ROWID;

DELETE FROM outbox WHERE kind = 'amie_compute';
DELETE FROM delivered WHERE kind = 'amie_compute';
DELETE FROM cursors WHERE name LIKE 'amie:%';
";

/// Quotas, beside the snapshots of policies and allocations.
const SOURCE_QUOTAS: &str = "
CREATE TABLE source_quotas (
    source TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Collections of storage reports: one row per report and interval, which begins on that day (days since 1970). `waiting`
/// holds the lines whose account has no project yet. And with every AMIE record the account of its job as it was told.
const AMIE_STORAGE: &str = "
CREATE TABLE amie_storage (
    report TEXT NOT NULL,
    day INTEGER NOT NULL,
    tried INTEGER NOT NULL,
    collected INTEGER,
    lines INTEGER NOT NULL,
    records INTEGER NOT NULL,
    excluded INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    samples TEXT NOT NULL,
    error TEXT NOT NULL,
    waiting TEXT NOT NULL,
    PRIMARY KEY (report, day)
) STRICT, WITHOUT ROWID;

ALTER TABLE amie_records ADD COLUMN account TEXT NOT NULL DEFAULT '';
";

/// Texts of jobs are kept once each and jobs name them by number; totals of ended jobs are kept beside them, changed in the
/// transaction that changes a job. Ids of windows never come back, so that rows left behind by one belong to nobody.
const SCALE: &str = "
CREATE TABLE names (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO names (name)
    SELECT account FROM jobs UNION SELECT user FROM jobs UNION SELECT state FROM jobs UNION SELECT part FROM jobs
    UNION SELECT qos FROM jobs;

CREATE TABLE jobs_by_number (
    seq INTEGER PRIMARY KEY,
    cluster INTEGER NOT NULL,
    dbindex INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    submit INTEGER NOT NULL,
    eligible INTEGER,
    started INTEGER,
    ended INTEGER,
    suspended_s INTEGER NOT NULL,
    elapsed_s INTEGER NOT NULL,
    account INTEGER NOT NULL,
    user INTEGER NOT NULL,
    state INTEGER NOT NULL,
    part INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    assoc_id INTEGER,
    alloc TEXT NOT NULL,
    runaway INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO jobs_by_number
    SELECT seq, cluster, dbindex, job_id, submit, eligible, started, ended, suspended_s, elapsed_s,
        (SELECT id FROM names WHERE name = account), (SELECT id FROM names WHERE name = user),
        (SELECT id FROM names WHERE name = state), (SELECT id FROM names WHERE name = part),
        (SELECT id FROM names WHERE name = qos), assoc_id, alloc, runaway
    FROM jobs ORDER BY seq;
DROP TABLE jobs;
ALTER TABLE jobs_by_number RENAME TO jobs;
CREATE UNIQUE INDEX jobs_key ON jobs (cluster, dbindex);
CREATE UNIQUE INDEX jobs_incarnation ON jobs (job_id, submit, cluster);
CREATE INDEX jobs_ended ON jobs (cluster, ended);
CREATE INDEX jobs_runaway ON jobs (cluster) WHERE runaway = 1;

CREATE TABLE totals_windows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster INTEGER NOT NULL REFERENCES clusters (id),
    window_from INTEGER NOT NULL,
    window_until INTEGER NOT NULL,
    jobs INTEGER NOT NULL,
    inexact INTEGER NOT NULL,
    wanted INTEGER NOT NULL,
    UNIQUE (cluster, window_from, window_until)
) STRICT;

CREATE TABLE totals (
    window INTEGER NOT NULL,
    account INTEGER NOT NULL,
    user INTEGER NOT NULL,
    used TEXT NOT NULL,
    PRIMARY KEY (window, account, user)
) STRICT, WITHOUT ROWID;

DELETE FROM counters WHERE name = 'generation';
";

/// What rows had of their own before a value was set that is given back (`before`, `now` and `earlier` are JSON of core types; an
/// account's own row has no user, a row bound to no partition no part), and the way to jobs by the time of submission. Until
/// here a GrpSubmitJobs of the agent's was always taken to have been none before.
const OWN_VALUES: &str = r#"
CREATE TABLE own_values (
    account TEXT NOT NULL,
    user TEXT NOT NULL,
    part TEXT NOT NULL,
    field TEXT NOT NULL,
    before TEXT NOT NULL,
    now TEXT NOT NULL,
    earlier TEXT,
    PRIMARY KEY (account, user, part, field)
) STRICT, WITHOUT ROWID;
INSERT INTO own_values (account, user, part, field, before, now)
    SELECT account, '', '', 'GrpSubmitJobs', '{"limit":"Cleared"}', '{"limit":{"At":0}}' FROM owned_submit;
DROP TABLE owned_submit;
CREATE INDEX jobs_submitted ON jobs (cluster, submit);
"#;

/// Totals with one row for each window and account, whose users are packed ([`crate::core::usage::AccountUse`]): a site of
/// 100,000 associations reads a tenth of the rows in every cycle. No window is kept any more, so that the next cycle adds up
/// those it wants.
const TOTALS_OF_ACCOUNTS: &str = "
DROP TABLE totals;
DELETE FROM totals_windows;
CREATE TABLE totals (
    window INTEGER NOT NULL,
    account TEXT NOT NULL,
    used BLOB NOT NULL,
    PRIMARY KEY (window, account)
) STRICT, WITHOUT ROWID;
";

/// One index less that every job is put into: what was submitted since an instant is found by its end, as nearly every job ends
/// after it was submitted. The others are kept apart, with the runaways. A first load takes a third less time for it.
const FEWER_INDEXES: &str = "
DROP INDEX jobs_submitted;
DROP INDEX jobs_runaway;
CREATE INDEX jobs_odd ON jobs (cluster) WHERE runaway = 1 OR ended < submit;
";

/// Takes a file from `found` to [`NEWEST`], inside the caller's transaction.
pub(super) fn upgrade(tx: &Transaction<'_>, found: i64) -> rusqlite::Result<()> {
    let seen = usize::try_from(found).unwrap_or(0);
    for step in STEPS.iter().skip(seen) {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", NEWEST)
}
