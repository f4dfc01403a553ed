//! One verb per endpoint of the usage API.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use secrecy::SecretString;
use url::Url;

use super::batch::{fitting, message};
use super::wire::{self, FailedRecord, LoadedRecord, StatusRow, record_json};
use crate::central::Surroundings;
use crate::central::error::{CentralError, Place};
use crate::central::http::{Answer, Call, Http, HttpSettings, base_url};
use crate::central::retry::Repeat;
use crate::core::amie::{Kind, Record};
use crate::core::name::SourceName;
use crate::core::time::Epoch;

/// How often one call takes a refused message apart to find the records that are to blame. 10 halvings find one bad
/// record among a thousand; a server that refuses everything is left alone after this many messages.
const SPLITS_MAX: u32 = 64;
/// Ids in one DELETE; keeps the address below 2 KiB.
const CLEAR_IDS_MAX: usize = 100;
/// Records asked per page of usage/loaded. The server gives up to 25,000; a page of this size stays near 1 MiB.
const LOADED_PAGE: usize = 5000;
/// Most pages of usage/loaded in one call.
const LOADED_PAGES_MAX: usize = 400;

/// What a client of the usage API needs.
pub struct AmieSettings {
    /// The source's name in the configuration.
    pub name: SourceName,
    /// Base address, `https://usage.access-ci.org/api/v1`.
    pub url: String,
    /// Name of the site (`XA-SITE`).
    pub site: String,
    /// Key of the site (`XA-API-KEY`).
    pub api_key: SecretString,
    /// CA certificates accepted beside the host's.
    pub ca_file: Option<PathBuf>,
    /// Proxy, else the environment's.
    pub proxy: Option<Url>,
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// Largest answer.
    pub response_bytes_max: usize,
    /// Most attempts per request.
    pub attempts_max: u32,
    /// Largest message, in bytes as sent.
    pub batch_bytes_max: usize,
    /// Most records in a message.
    pub batch_records_max: usize,
}

/// A record that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The record.
    pub local_record_id: String,
    /// The server's reason.
    pub error: String,
}

/// What became of the records of one call. Every record is in exactly one of the three lists.
#[derive(Debug, Default)]
pub struct BatchReply {
    /// Valid and queued at the server; not yet loaded.
    pub accepted: Vec<String>,
    /// Refused with a reason.
    pub rejected: Vec<Rejection>,
    /// Not known: to be sent again, which is harmless.
    pub undecided: Vec<String>,
    /// Why some are undecided.
    pub stopped_by: Option<CentralError>,
    /// How many messages were sent.
    pub messages: u32,
}

/// One usage API.
pub struct AmieClient {
    http: Http,
    batch_bytes_max: usize,
    batch_records_max: usize,
}

impl fmt::Debug for AmieClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmieClient").field("http", &self.http).finish_non_exhaustive()
    }
}

/// The records of one call on their way to a decision.
struct Sending {
    kind: Kind,
    ids: Vec<String>,
    records: Vec<String>,
    /// Groups of records, in order; a group never shares a message with another.
    todo: VecDeque<VecDeque<usize>>,
    bytes_max: usize,
    splits: u32,
    any_success: bool,
    /// Records refused alone by a status instead of a list.
    refused_alone: Vec<(usize, CentralError)>,
    reply: BatchReply,
}

impl AmieClient {
    /// Prepares a client; no connection is made. Errors are of class misconfigured.
    pub fn new(settings: &AmieSettings, surroundings: Surroundings) -> Result<Self, CentralError> {
        let http = Http::new(
            HttpSettings {
                server: settings.name.clone(),
                base: base_url(&settings.name, &settings.url)?,
                secret_headers: vec![("xa-api-key", "", settings.api_key.clone())],
                headers: vec![("xa-site", settings.site.clone())],
                ca_file: settings.ca_file.clone(),
                proxy: settings.proxy.clone(),
                timeout: settings.timeout,
                response_bytes_max: settings.response_bytes_max,
                attempts_max: settings.attempts_max,
            },
            surroundings,
        )?;
        Ok(Self {
            http,
            batch_bytes_max: settings.batch_bytes_max,
            batch_records_max: settings.batch_records_max,
        })
    }

    /// The shared part: clock skew, name.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Sends records, all of one kind, in as few messages as the limits allow. A record sent again under its id replaces the
    /// earlier one, so undecided records are simply sent again.
    ///
    /// A message that is too large (413) is halved, and so are all later ones. A message that is refused as a whole
    /// (400, 422), or whose refused records cannot be told, is taken apart until the records to blame stand alone.
    pub async fn post(&self, kind: Kind, records: &[Record]) -> BatchReply {
        let mut sending = Sending {
            kind,
            ids: records.iter().map(|record| record.local_record_id.clone()).collect(),
            records: records.iter().map(record_json).collect(),
            todo: VecDeque::from([(0..records.len()).collect()]),
            bytes_max: self.batch_bytes_max,
            splits: 0,
            any_success: false,
            refused_alone: Vec::new(),
            reply: BatchReply::default(),
        };
        while let Some(batch) = sending.next_batch(self.batch_records_max) {
            let body = message(kind, batch.iter().map(|at| sending.records[*at].as_str()));
            let bytes = body.len();
            sending.reply.messages += 1;
            let answer = self.http.send(Call::send(Method::POST, "usage/", body, Repeat::Absolute)).await;
            let outcome = answer.and_then(|answer| failures(&answer).map(|failures| (answer, failures)));
            match outcome {
                Ok((answer, failures)) => sending.settle(&answer, batch, &failures),
                Err(error) => sending.refused(error, batch, bytes),
            }
            if sending.reply.stopped_by.is_some() {
                break;
            }
        }
        sending.finish()
    }

    /// Counts of what was processed between two instants, per resource.
    pub async fn usage_status(&self, from: Epoch, to: Epoch) -> Result<Vec<StatusRow>, CentralError> {
        let query = [("FromTime", from.to_string()), ("ToTime", to.to_string())];
        let answer = self.http.send(Call::get("usage/status", &query)).await?;
        wire::status_rows(&answer.json()?).map_err(|misfit| answer.wrong_shape(misfit))
    }

    /// All records that failed in processing and are not cleared.
    pub async fn failed(&self) -> Result<Vec<FailedRecord>, CentralError> {
        let answer = self.http.send(Call::get("usage/failed", &[])).await?;
        wire::failed_records(&answer.json()?).map_err(|misfit| answer.wrong_shape(misfit))
    }

    /// Clears failed records by the server's ids. Ids that are gone already do not matter.
    pub async fn clear_failed(&self, failed_record_ids: &[String]) -> Result<(), CentralError> {
        for ids in failed_record_ids.chunks(CLEAR_IDS_MAX) {
            if let Some(odd) =
                ids.iter().find(|id| id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()))
            {
                return Err(CentralError::Unaddressed {
                    what: format!("{odd:?} is not the id of a failed record"),
                });
            }
            let path = format!("usage/failed/{}", ids.join(","));
            match self.http.send(Call::delete(&path)).await {
                Ok(_) => {}
                Err(CentralError::Refused { status: 404, attempts, .. }) if attempts > 1 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Records loaded since an instant; `None` where the server is too old to tell.
    ///
    /// Two ways of paging are known, by number (`Page`, `PageSize`, `NextPage`) and by place (`Limit`, `Offset`); the
    /// first question is meaningful to both, and the answer tells which it is. Names of parameters were read, not tried on
    /// the production server, so a server that follows neither is asked on until a page brings nothing new.
    pub async fn loaded(&self, since: Epoch) -> Result<Option<Vec<LoadedRecord>>, CentralError> {
        let mut records: BTreeMap<(String, String, String), LoadedRecord> = BTreeMap::new();
        let mut unique = BTreeSet::new();
        let (mut offset, mut page_number) = (0_usize, None::<usize>);
        for page in 0..LOADED_PAGES_MAX {
            let mut query = vec![("MinLoadedTime", since.to_string()), ("PageSize", LOADED_PAGE.to_string())];
            match page_number {
                Some(number) => query.push(("Page", number.to_string())),
                None => query.extend([("Limit", LOADED_PAGE.to_string()), ("Offset", offset.to_string())]),
            }
            let answer = match self.http.send(Call::get("usage/loaded", &query)).await {
                Ok(answer) => answer,
                Err(CentralError::WrongAddress { .. } | CentralError::Refused { status: 404 | 405, .. })
                    if page == 0 =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let found = wire::loaded_page(&answer.json()?).map_err(|misfit| answer.wrong_shape(misfit))?;
            let full = found.records.len() >= LOADED_PAGE;
            let before = unique.len();
            offset += found.records.len();
            for record in found.records {
                let key =
                    (record.usage_type.clone(), record.resource.clone(), record.local_record_id.clone());
                // A record restated in between is loaded twice; the later row holds.
                unique.insert((key.clone(), record.loaded));
                records.insert(key, record);
            }
            let nothing_new = unique.len() == before;
            let last = match (found.next_page, found.total) {
                (Some(next), _) => {
                    page_number = next;
                    next.is_none()
                }
                (None, Some(total)) => offset >= total || nothing_new,
                (None, None) => !full && nothing_new,
            };
            if last {
                return Ok(Some(records.into_values().collect()));
            }
            if nothing_new {
                let what = "a full page repeats the one before".to_owned();
                return Err(CentralError::ListChanged { place: answer.place, what });
            }
        }
        Err(CentralError::ListChanged {
            place: Place("GET usage/loaded".to_owned()),
            what: format!("more than {LOADED_PAGES_MAX} pages; ask for a shorter span"),
        })
    }
}

/// The refused records of a successful answer; an answer without a body (202) refuses none.
fn failures(answer: &Answer) -> Result<Vec<wire::ValidationFailure>, CentralError> {
    if answer.is_empty() {
        return Ok(Vec::new());
    }
    wire::validation_failures(&answer.json()?).map_err(|misfit| answer.wrong_shape(misfit))
}

impl Sending {
    /// Takes the next message's records off the front group.
    fn next_batch(&mut self, records_max: usize) -> Option<Vec<usize>> {
        while let Some(mut group) = self.todo.pop_front() {
            if group.is_empty() {
                continue;
            }
            let count = fitting(
                self.kind,
                group.iter().map(|at| self.records[*at].as_str()),
                self.bytes_max,
                records_max,
            );
            let batch = group.drain(..count).collect();
            self.todo.push_front(group);
            return Some(batch);
        }
        None
    }

    /// The server took the message: all records but the named ones are accepted.
    fn settle(&mut self, answer: &Answer, batch: Vec<usize>, failures: &[wire::ValidationFailure]) {
        self.any_success = true;
        let mut errors: BTreeMap<&str, &str> = BTreeMap::new();
        for failure in failures {
            let named = failure.local_record_id.as_deref();
            let ours = named.and_then(|id| batch.iter().find(|at| self.ids[**at] == id));
            match (ours, named) {
                (Some(_), Some(id)) => drop(errors.insert(id, &failure.error)),
                _ if batch.len() == 1 => drop(errors.insert(&self.ids[batch[0]], &failure.error)),
                _ => {
                    let error = answer.wrong_shape(format!(
                        "ValidationFailedRecords names {named:?}, which is not in the message"
                    ));
                    return self.take_apart(error, batch);
                }
            }
        }
        for at in batch {
            let id = self.ids[at].clone();
            match errors.get(id.as_str()) {
                Some(error) => {
                    self.reply.rejected.push(Rejection { local_record_id: id, error: (*error).to_owned() });
                }
                None => self.reply.accepted.push(id),
            }
        }
    }

    /// The message did not succeed.
    fn refused(&mut self, error: CentralError, batch: Vec<usize>, bytes: usize) {
        match error.status() {
            Some(413) if batch.len() > 1 => {
                self.bytes_max = bytes / 2;
                self.todo.push_front(batch.into());
            }
            Some(400 | 413 | 422) if batch.len() == 1 => self.refused_alone.push((batch[0], error)),
            Some(400 | 422) => self.take_apart(error, batch),
            _ => self.stop(error, batch),
        }
    }

    fn take_apart(&mut self, error: CentralError, mut batch: Vec<usize>) {
        self.splits += 1;
        if self.splits > SPLITS_MAX {
            return self.stop(error, batch);
        }
        let second = batch.split_off(batch.len() / 2);
        self.todo.push_front(second.into());
        self.todo.push_front(batch.into());
    }

    fn stop(&mut self, error: CentralError, batch: Vec<usize>) {
        self.todo.push_front(batch.into());
        self.reply.stopped_by = Some(error);
    }

    /// A server that takes nothing and says the same of every record means us, not the records.
    fn finish(mut self) -> BatchReply {
        let first = self.refused_alone.first().map(|(_, error)| error_of(error));
        let all_alike = self.refused_alone.iter().all(|(_, error)| Some(error_of(error)) == first);
        let blames_us = !self.any_success && self.refused_alone.len() > 1 && all_alike;
        for (at, error) in self.refused_alone {
            let id = self.ids[at].clone();
            if blames_us {
                self.reply.undecided.push(id);
                self.reply.stopped_by.get_or_insert(error);
            } else {
                self.reply.rejected.push(Rejection { local_record_id: id, error: error_of(&error) });
            }
        }
        for at in self.todo.into_iter().flatten() {
            self.reply.undecided.push(self.ids[at].clone());
        }
        self.reply
    }
}

fn error_of(error: &CentralError) -> String {
    match error {
        CentralError::Refused { status, excerpt, .. } => format!("status {status}: {excerpt}"),
        other => other.to_string(),
    }
}
