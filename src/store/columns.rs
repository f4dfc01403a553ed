//! Core types in columns and back. What cannot be read back is an error, never a default.

use rusqlite::types::{FromSqlError, ToSqlOutput, Type};
use rusqlite::{Error, Result, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::job::Printed;
use crate::core::time::Epoch;
use crate::core::tres::{Tres, TresCounts};

impl rusqlite::ToSql for Epoch {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl rusqlite::types::FromSql for Epoch {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> std::result::Result<Epoch, FromSqlError> {
        i64::column_result(value).map(Epoch)
    }
}

impl rusqlite::ToSql for Printed {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        self.as_str().to_sql()
    }
}

impl rusqlite::types::FromSql for Printed {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> std::result::Result<Printed, FromSqlError> {
        value.as_str().map(Printed::from)
    }
}

/// An unsigned number as the bit pattern that is stored.
pub(super) fn bits(value: u64) -> i64 {
    value.cast_signed()
}

/// Reads what [`bits`] stored.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

/// A count of rows, which memory bounds far below 2^63.
pub(super) fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a count that [`count`] stored.
pub(super) fn counted(row: &Row<'_>, column: usize) -> Result<usize> {
    let value: i64 = row.get(column)?;
    usize::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(column, value))
}

/// A column that is not what this program writes there.
pub(super) fn unreadable(column: usize, reason: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, Box::new(reason))
}

/// A word in a column that is none of those known.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not known here")]
pub(super) struct UnknownWord(pub String);

/// JSON text of a core type.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}

/// Reads what [`json`] wrote.
pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|error| unreadable(column, error))?;
    serde_json::from_str(text).map_err(|error| unreadable(column, error))
}

/// Reads what [`json`] wrote, where there is something.
pub(super) fn from_json_maybe<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => from_json(row, column).map(Some),
    }
}

/// A checked name, read back through its own check.
pub(super) fn parsed<T, E>(
    row: &Row<'_>,
    column: usize,
    parse: fn(&str) -> std::result::Result<T, E>,
) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?.as_str().map_err(|error| unreadable(column, error))?;
    parse(text).map_err(|error| unreadable(column, error))
}

/// TRES counts as Slurm writes them: `billing=2,cpu=2`.
pub(super) fn write_counts(counts: &TresCounts, into: &mut String) {
    use std::fmt::Write;
    into.clear();
    for (tres, amount) in counts {
        let comma = if into.is_empty() { "" } else { "," };
        write!(into, "{comma}{}={amount}", tres.as_str()).expect("writing to a String does not fail");
    }
}

/// Reads what [`write_counts`] wrote.
pub(super) fn counts(row: &Row<'_>, column: usize) -> Result<TresCounts> {
    let text = row.get_ref(column)?.as_str().map_err(|error| unreadable(column, error))?;
    let mut found = TresCounts::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, amount) =
            item.split_once('=').ok_or_else(|| unreadable(column, UnknownWord(item.to_owned())))?;
        let tres = Tres::parse(name).map_err(|error| unreadable(column, error))?;
        let amount = amount.parse::<u64>().map_err(|error| unreadable(column, error))?;
        found.insert(tres, amount);
    }
    Ok(found)
}
