//! sacct's answer -> batches of job records, in memory that does not grow with the answer.
//!
//! Records of one batch are compared with each other: the same row twice is one row, two that contradict each other are
//! none. A key that came in a batch before cannot be taken back; it is told, and the answer is then worth nothing as a
//! whole. A genuine answer shows each key once: slurmdbd's table has it as primary key.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashTable;

use super::job_rows::{self, ALLOC_UNCLEAR, JobRow};
use super::known::Known;
use super::marks::Marks;
use super::rows::{self, Rejects};
use super::shown::Shown;
use super::tres_text;
use crate::core::job::{JobKey, JobRecord, Printed};
use crate::core::name::ClusterName;
use crate::core::tres::TresCounts;

/// Records of one batch: about 4 MB, of which several are on their way from sacct to the store, and few enough commits of the
/// store to be of no weight.
pub(super) const BATCH_RECORDS: usize = 1 << 14;

/// Most texts and lists that are remembered; a big site has some ten thousand.
const KNOWN_MAX: usize = 1 << 17;

/// Most bytes of them.
const KNOWN_BYTES_MAX: usize = 16 << 20;

/// Reads an answer piece by piece.
#[derive(Debug)]
pub(super) struct JobReader {
    cluster: ClusterName,
    marks: Marks,
    printed: Known<Printed>,
    allocs: Known<Option<Arc<TresCounts>>>,
    batch: Batch,
    shown: Shown,
    pub rejects: Rejects,
}

/// Records that have not been handed on.
#[derive(Debug, Default)]
struct Batch {
    records: Vec<JobRecord>,
    /// Places of the records by DBIndex.
    places: HashTable<u32>,
    hasher: foldhash::quality::RandomState,
    /// Keys of which nothing is known, because rows contradict each other.
    unclear: BTreeSet<u64>,
}

impl JobReader {
    pub fn new(cluster: &ClusterName) -> Self {
        JobReader {
            cluster: cluster.clone(),
            marks: Marks::default(),
            printed: Known::new(),
            allocs: Known::new(),
            batch: Batch::default(),
            shown: Shown::default(),
            rejects: Rejects::default(),
        }
    }

    /// Reads whole rows: `text` ends with a newline or is empty.
    pub fn read(&mut self, text: &[u8]) {
        self.printed.forget_if_many(KNOWN_MAX, KNOWN_BYTES_MAX);
        self.allocs.forget_if_many(KNOWN_MAX, KNOWN_BYTES_MAX);
        let (printed, allocs, batch) = (&mut self.printed, &mut self.allocs, &mut self.batch);
        job_rows::each(text, &self.cluster, &mut self.marks, &mut self.rejects, |job, row, rejects| {
            let alloc = allocs.made(job.alloc, |text| tres_text::counts(text).map(Arc::new));
            let alloc = Arc::clone(alloc.as_ref().ok_or(ALLOC_UNCLEAR)?);
            batch.add(record(job, alloc, &self.cluster, printed), row, rejects);
            Ok(())
        });
    }

    /// Whether there are enough records for a batch.
    pub fn is_full(&self) -> bool {
        self.batch.records.len() >= BATCH_RECORDS
    }

    /// The records read since the last batch, each key once, in the order of the answer.
    ///
    /// # Errors
    /// A key that a batch before had already.
    pub fn take(&mut self) -> Result<Vec<JobRecord>, u64> {
        let batch = std::mem::take(&mut self.batch);
        let repeated = self.shown.add(batch.records.iter().map(|record| record.key.dbindex).collect());
        let mut records = batch.records;
        if !batch.unclear.is_empty() {
            records.retain(|record| !batch.unclear.contains(&record.key.dbindex));
        }
        repeated.map_or(Ok(records), Err)
    }
}

fn record(
    job: JobRow<'_>,
    alloc: Arc<TresCounts>,
    cluster: &ClusterName,
    printed: &mut Known<Printed>,
) -> JobRecord {
    let mut text = |bytes: &[u8]| printed.made(bytes, |bytes| rows::text(bytes).into()).clone();
    JobRecord {
        key: JobKey { cluster: cluster.clone(), dbindex: job.dbindex },
        job_id: job.job_id,
        account: text(job.account),
        user: text(job.user),
        state: text(job.state),
        submit: job.submit,
        eligible: job.eligible,
        start: job.start,
        end: job.end,
        suspended_s: job.suspended_s,
        elapsed_s: job.elapsed_s,
        partition: text(job.partition),
        qos: text(job.qos),
        assoc_id: job.assoc_id,
        alloc,
    }
}

impl Batch {
    fn add(&mut self, record: JobRecord, row: &[u8], rejects: &mut Rejects) {
        use std::hash::BuildHasher;
        let dbindex = record.key.dbindex;
        let (hasher, records) = (&self.hasher, &self.records);
        let hash = hasher.hash_one(dbindex);
        let known = self.places.find(hash, |place| records[*place as usize].key.dbindex == dbindex);
        let Some(known) = known else {
            let place = u32::try_from(self.records.len()).expect("a batch is handed on before it is so long");
            self.places
                .insert_unique(hash, place, |place| hasher.hash_one(records[*place as usize].key.dbindex));
            self.records.push(record);
            return;
        };
        let differs = records[*known as usize] != record;
        if self.unclear.contains(&dbindex) {
            rejects.add(row, "contradicts another row");
        } else if differs {
            self.unclear.insert(dbindex);
            rejects.add(row, "contradicts another row");
            rejects.count += 1;
        }
    }
}
