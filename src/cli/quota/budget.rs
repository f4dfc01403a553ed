//! Waldur's quotas.

use uuid::Uuid;

use super::chart::{self, HistoryArgs};
use super::view::{self, Listed};
use super::{AgentError, SetArgs, Source, explained, only, unchanged};
use crate::central::Notice;
use crate::central::waldur::{QuotaFilter, QuotaWrite, WaldurQuotaClient, Written};
use crate::cli::render;
use crate::core::exact::Exact;
use crate::core::quota::{Bound, BudgetQuota};
use crate::core::quota_map::{BudgetMap, BudgetUnit};
use crate::core::time::Epoch;

/// The quotas of a source of kind waldur-quota.
pub struct Budgets<'a> {
    /// The source.
    pub source: &'a Source,
    /// Its client.
    pub client: &'a WaldurQuotaClient,
    /// What its words mean.
    pub map: &'a BudgetMap,
}

impl Budgets<'_> {
    /// Quotas with a name that means something here, of accounts of this cluster; or all.
    pub async fn list(&self, all: bool) -> Result<Listed, AgentError> {
        let (map, mut notices) = self.map_with_accounts().await?;
        let listed = if all {
            self.client.list(&QuotaFilter::default()).await
        } else {
            self.client.list_named(&map.tres.keys().map(String::as_str).collect()).await
        };
        let listed = listed.map_err(explained)?;
        let mut quotas = listed.value;
        quotas.retain(|quota| all || map.account(&quota.scope).is_some());
        notices.extend(listed.notices);
        Ok(self.shown(&quotas, &map, &notices))
    }

    /// The quotas that are meant.
    pub async fn show(&self, what: &str) -> Result<Listed, AgentError> {
        let (map, notices) = self.map_with_accounts().await?;
        let quotas = self.find(what, &map).await?;
        if quotas.is_empty() {
            return Err(super::nothing(self.source.name.as_str(), what));
        }
        Ok(self.shown(&quotas, &map, &notices))
    }

    /// Changes limit and threshold.
    pub async fn set(&self, args: &SetArgs) -> Result<Listed, AgentError> {
        args.check(self.source)?;
        let (map, _) = self.map_with_accounts().await?;
        let quota = self.one(&args.what, &map).await?;
        let account = map.account(&quota.scope);
        let name = format!("quota {} ({} of {})", quota.id, quota.name, view::account(account));
        let unit = self.unit();
        let threshold = |threshold: Option<Exact>| threshold.unwrap_or(Exact::ZERO).to_string();
        let then = args.limit.unwrap_or(quota.limit);
        let rows = vec![
            (format!("limit, {unit}"), view::bound(quota.limit), view::bound(then)),
            (
                format!("threshold, {unit}"),
                threshold(quota.threshold),
                threshold(args.threshold.or(quota.threshold)),
            ),
        ];
        let Some(changes) = view::changes(rows) else {
            return Ok(unchanged(&name, view::json_of(&quota, account)));
        };
        let usage = format!("In use: {} {unit}", quota.usage);
        args.consent.ask(&format!("{name} at source {}:\n{changes}{usage}", self.source.name))?;
        let write = QuotaWrite { limit: args.limit, threshold: args.threshold };
        let written = self.client.write(&quota.id, &write, Written::Patch).await.map_err(explained)?;
        let shown = self.shown(std::slice::from_ref(&written), &map, &[]);
        Ok(Listed { json: view::json_of(&written, account), ..shown })
    }

    /// How a quota was.
    pub async fn history(&self, args: &HistoryArgs, now: Epoch, json: bool) -> Result<Listed, AgentError> {
        let (map, _) = self.map_with_accounts().await?;
        let quota = self.one(&args.what, &map).await?;
        let account = map.account(&quota.scope);
        let points = self.client.history(&quota.id, &args.points(now, json)?).await.map_err(explained)?;
        let title = format!("{} of {}, {}", quota.name, view::account(account), self.unit());
        Ok(Listed {
            text: chart::shown(&title, &points),
            json: chart::json(&quota.id, account, &points),
            notices: Vec::new(),
        })
    }

    /// The map with the accounts of the server's resources where the configuration names none.
    async fn map_with_accounts(&self) -> Result<(BudgetMap, Vec<Notice>), AgentError> {
        let mut map = self.map.clone();
        if !map.accounts.is_empty() {
            return Ok((map, Vec::new()));
        }
        let found = self.client.accounts().await.map_err(explained)?;
        for (uuid, account) in found.value {
            map.accounts.insert(uuid.replace('-', ""), account.clone());
            map.accounts.insert(uuid, account);
        }
        Ok((map, found.notices))
    }

    async fn find(&self, what: &str, map: &BudgetMap) -> Result<Vec<BudgetQuota>, AgentError> {
        if Uuid::try_parse(what).is_ok() {
            return Ok(vec![self.client.retrieve(what).await.map_err(explained)?]);
        }
        let names = map.tres.keys().map(String::as_str).collect();
        let mut quotas = self.client.list_named(&names).await.map_err(explained)?.value;
        quotas.retain(|quota| map.account(&quota.scope).is_some_and(|account| account.as_str() == what));
        Ok(quotas)
    }

    async fn one(&self, what: &str, map: &BudgetMap) -> Result<BudgetQuota, AgentError> {
        let found = self.find(what, map).await?;
        only(self.source, what, found, |quota| format!("{} ({})", quota.id, quota.name))
    }

    fn unit(&self) -> &'static str {
        match self.map.unit {
            BudgetUnit::Seconds => "seconds",
            BudgetUnit::Minutes => "minutes",
            BudgetUnit::Hours => "hours",
        }
    }

    fn shown(&self, quotas: &[BudgetQuota], map: &BudgetMap, notices: &[Notice]) -> Listed {
        let row = |quota: &BudgetQuota| {
            vec![
                quota.id.clone(),
                quota.name.clone(),
                view::account(map.account(&quota.scope)),
                map.tres.get(&quota.name).map_or_else(|| "-".to_owned(), ToString::to_string),
                view::bound(quota.limit),
                quota.usage.to_string(),
                percent(quota).unwrap_or_else(|| "-".to_owned()),
                quota.threshold.map_or_else(|| "-".to_owned(), |threshold| threshold.to_string()),
            ]
        };
        let header = ["UUID", "Name", "Account", "TRES", "Limit", "Usage", "%", "Threshold"];
        let table = render::table("", &header, quotas.iter().map(row).collect());
        let json = quotas.iter().map(|quota| view::json_of(quota, map.account(&quota.scope))).collect();
        Listed::of(self.source, &format!(", amounts in {}", self.unit()), &table, json, notices)
    }
}

/// How much of the limit is used, where there is one.
fn percent(quota: &BudgetQuota) -> Option<String> {
    let Bound::AtMost(limit) = quota.limit else { return None };
    quota.usage.times(Exact::whole(100))?.over(limit)?.to_decimal(1)
}
