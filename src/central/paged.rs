//! Reads a list that comes in pages as a whole: a list that changed while it was read is read again from the start.
//!
//! How pages are asked for, and how a change of the list shows, is each server's own.

use serde_json::Value;

use super::error::{CentralError, Place};

/// How often a list is read before it counts as changing all the time.
const READS_MAX: u32 = 3;

/// What came of one reading of all pages.
pub(super) enum Read {
    /// All rows of the list.
    Whole(Vec<Value>),
    /// The pages do not add up: where it showed, and how.
    Changed(Place, String),
}

/// All rows of a list, by as many readings as it takes.
///
/// # Errors
/// Those of a reading, and [`CentralError::ListChanged`] when the list changed in every one.
pub(super) async fn read_whole(
    read_once: impl AsyncFn() -> Result<Read, CentralError>,
) -> Result<Vec<Value>, CentralError> {
    let mut read = 0;
    loop {
        read += 1;
        match read_once().await? {
            Read::Whole(rows) => return Ok(rows),
            Read::Changed(place, what) if read == READS_MAX => {
                let what = format!("{what}, {READS_MAX} times over");
                return Err(CentralError::ListChanged { place, what });
            }
            Read::Changed(place, what) => {
                tracing::debug!(%place, %what, "the list changed while it was read; reading it again");
            }
        }
    }
}
