//! `[[quota]]` of the configuration: quotas of the site's own, without a server for them.

use super::amounts::rule_text;
use super::view::{self, Listed};
use super::{AgentError, QuotaVerb};
use crate::cli::render;
use crate::config::{LOCAL_SOURCE, LocalConsumer, LocalQuota, local_quotas};
use crate::core::exact::Exact;
use crate::core::quota::RateQuota;
use crate::core::quota_map::SourceQuotas;

/// What kind of source it is, for people and for scripts.
const KIND: &str = "configuration";

/// Shows them; nothing else can be done with them here.
pub fn on_local(quotas: &[LocalQuota], verb: &QuotaVerb) -> Result<Listed, AgentError> {
    match verb {
        QuotaVerb::List { .. } => Ok(shown(quotas)),
        QuotaVerb::Show { what } => {
            let is_meant = |quota: &&LocalQuota| quota.name == *what || quota.account.as_str() == what;
            let found: Vec<LocalQuota> = quotas.iter().filter(is_meant).cloned().collect();
            if found.is_empty() {
                return Err(super::nothing(LOCAL_SOURCE, what));
            }
            Ok(shown(&found))
        }
        QuotaVerb::History(_) => Err(AgentError::Asked(super::NO_HISTORY.to_owned())),
        QuotaVerb::Set(_)
        | QuotaVerb::Delete { .. }
        | QuotaVerb::Templates { .. }
        | QuotaVerb::ApplyTemplate { .. } => Err(AgentError::Asked(
            "quotas of source local stand in the configuration as [[quota]]: change them there, and let the daemon read it again \
             (systemctl reload slurm-site-agent)"
                .to_owned(),
        )),
    }
}

fn shown(quotas: &[LocalQuota]) -> Listed {
    let row = |quota: &LocalQuota| {
        let user = match &quota.consumer {
            LocalConsumer::Account => "-".to_owned(),
            LocalConsumer::User(user) => user.to_string(),
            LocalConsumer::EachUser => "*".to_owned(),
        };
        let reserved = quota.reserved > Exact::ZERO;
        let where_reserved = |text: String| if reserved { text } else { "-".to_owned() };
        vec![
            quota.name.clone(),
            quota.account.to_string(),
            user,
            quota.rule.as_ref().map_or_else(|| "-".to_owned(), rule_text),
            where_reserved(quota.reserved.to_string()),
            where_reserved(format!("{} {}", quota.capacity, super::rate::units_word(quota.capacity_units))),
            where_reserved(quota.saturation_threshold.to_string()),
        ]
    };
    let header = ["Name", "Account", "User", "Rule", "Reserved", "Capacity", "Saturation"];
    let table = render::table("", &header, quotas.iter().map(row).collect());
    let json = match local_quotas(quotas) {
        Some(SourceQuotas::Rate { quotas, map }) => {
            let one = |quota: &RateQuota| view::json_of(quota, map.resources.get(&quota.resource_id));
            quotas.iter().map(one).collect()
        }
        _ => Vec::new(),
    };
    Listed::from((LOCAL_SOURCE, KIND), "", &table, json, &[])
}
