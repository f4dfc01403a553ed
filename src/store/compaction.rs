//! Giving the room of what was removed back to the file system.
//!
//! Pages of rows that retention removed are used again for new ones, so that a store grows no further than what is kept. The
//! file itself gets smaller only here. (Pages could be given back as they come free, if each new page noted who points at it:
//! that would make a first load a twelfth slower for what is wanted once in years.)

use super::Store;
use super::error::StoreError;

/// Sizes of a store's file around [`Store::compact`], in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Compacted {
    /// Of the file before.
    pub bytes_before: u64,
    /// Of the file now.
    pub bytes_after: u64,
}

impl Store {
    /// Bytes of the file that hold nothing and wait for new rows.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        self.bytes_of("PRAGMA freelist_count")
    }

    fn bytes_of(&self, pages: &str) -> Result<u64, StoreError> {
        self.reading("looking at the file", |conn| {
            let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
            Ok((number(pages)? * number("PRAGMA page_size")?).cast_unsigned())
        })
    }

    /// Writes the file anew without free pages. One transaction: killed in between, the store is as it was. It takes seconds per
    /// gigabyte, and room for what is kept twice over: in the directory for temporary files (`SQLITE_TMPDIR`, else `/var/tmp`)
    /// and beside the store. Readers go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Full`] where there is no room, among others.
    pub fn compact(&mut self) -> Result<Compacted, StoreError> {
        let doing = "making the file smaller";
        if self.lock.is_none() {
            return Err(StoreError::ReadOnly { doing, path: self.path.clone() });
        }
        let bytes_before = self.bytes_of("PRAGMA page_count")?;
        self.reading(doing, |conn| {
            // The new pages would be in memory else, all of them.
            conn.pragma_update(None, "temp_store", "FILE")?;
            let written = conn.execute_batch("VACUUM");
            conn.pragma_update(None, "temp_store", "MEMORY")?;
            written?;
            // Brings the pages from the write-ahead log into the file, which is cut off then. A reader may keep it from being
            // cut now; it is at the next opening.
            conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })?;
        Ok(Compacted { bytes_before, bytes_after: self.bytes_of("PRAGMA page_count")? })
    }
}
