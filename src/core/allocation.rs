//! What a group was granted.

use serde::{Deserialize, Serialize};

use super::component::ComponentName;
use super::exact::Exact;
use super::name::{AccountName, SourceName};
use super::small_map::SmallMap;

/// A granted budget that maps to one Slurm account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Who says so.
    pub source: SourceName,
    /// The resource's uuid at the server, or `local:ACCOUNT`.
    pub id: String,
    /// The server's name of it, for people.
    pub name: String,
    /// The account it pays for.
    pub account: AccountName,
    /// Granted amount per component, in the component's unit. Empty: the policy's limits hold.
    pub limits: SmallMap<ComponentName, Exact>,
    /// The server's own flag: blocked there.
    pub paused: bool,
    /// The server's own flag: slowed down there.
    pub downscaled: bool,
}
