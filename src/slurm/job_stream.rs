//! The answer of sacct to the question for job records, read as it comes.

use super::argv::Argv;
use super::job_reader::JobReader;
use super::runner::{RunError, Running, Stream};
use super::{SlurmError, judge};
use crate::core::job::JobRecord;
use crate::core::name::ClusterName;

/// Longest row. A row of sacct has some 200 bytes; only the names of accounts, TRES and licences in it can be long.
const ROW_BYTES_MAX: usize = 1 << 20;

/// What is kept of the first output, in which a program may say why it fails.
const FIRST_WORDS_BYTES: usize = 600;

/// Job records as sacct prints them. The memory it takes does not grow with the answer, but for four bytes a record.
#[derive(Debug)]
pub struct JobStream {
    operation: String,
    argv: Argv,
    /// `None` after the program's end.
    running: Option<Running>,
    reader: JobReader,
    /// What has been read of the output and not been looked at: the beginning of a row.
    rest: Vec<u8>,
    first_words: Vec<u8>,
    ended: bool,
}

impl JobStream {
    pub(super) fn new(operation: String, argv: Argv, running: Running, cluster: &ClusterName) -> Self {
        JobStream {
            operation,
            argv,
            running: Some(running),
            reader: JobReader::new(cluster),
            rest: Vec::new(),
            first_words: Vec::new(),
            ended: false,
        }
    }

    /// The next records, some ten thousand at most, each key once; `None` after the last ones, and only then was the answer
    /// whole. Rows that contradict another one of the same batch are rejected, and nothing is known of their job.
    ///
    /// # Errors
    /// When the answer is not whole: sacct failed, was ended or cut off, a row has no end, or a record came again that an earlier
    /// batch had. The batches before are what sacct said until then, and prove nothing about the window.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<JobRecord>>, SlurmError> {
        while !self.ended && !self.reader.is_full() {
            self.read_piece().await?;
        }
        let batch = self.reader.take().map_err(|dbindex| SlurmError::Repeated {
            operation: self.operation.clone(),
            argv: self.argv.to_string(),
            dbindex,
        })?;
        Ok(Some(batch).filter(|batch| !(batch.is_empty() && self.ended)))
    }

    /// How many rows were not understood, or contradicted each other, so far.
    pub fn rejected(&self) -> usize {
        self.reader.rejects.count
    }

    /// The first of those with the reason, safe to print.
    pub fn samples(&self) -> &[String] {
        &self.reader.rejects.samples
    }

    async fn read_piece(&mut self) -> Result<(), SlurmError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let before = self.rest.len();
        let failed = |source| SlurmError::Run { operation: self.operation.clone(), source };
        if running.read(&mut self.rest).await.map_err(failed)? == 0 {
            return self.finish().await;
        }
        let room = FIRST_WORDS_BYTES.saturating_sub(self.first_words.len());
        let read = &self.rest[before..];
        self.first_words.extend_from_slice(&read[..read.len().min(room)]);
        if let Some(newline) = memchr::memrchr(b'\n', read) {
            let whole = before + newline + 1;
            self.reader.read(&self.rest[..whole]);
            self.rest.drain(..whole);
        }
        if self.rest.len() > ROW_BYTES_MAX {
            let (argv, bytes_max) = (self.argv.to_string(), ROW_BYTES_MAX as u64);
            return Err(failed(RunError::OutputTooLarge { argv, stream: Stream::Row, bytes_max }));
        }
        Ok(())
    }

    /// Judges the answer by the program's end.
    async fn finish(&mut self) -> Result<(), SlurmError> {
        self.ended = true;
        let Some(running) = self.running.take() else { return Ok(()) };
        let failed = |source| SlurmError::Run { operation: self.operation.clone(), source };
        let answer = running.end().await.map_err(failed)?;
        judge(&self.operation, &self.argv, &self.first_words, self.rest.is_empty(), &answer)
    }
}
