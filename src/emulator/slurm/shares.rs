//! Fair shares as the controller of 22.05 works them out with its usual Fair Tree: what `sshare` and `scontrol show
//! assoc_mgr` show beside the raw usage.

use super::tree::Tree;
use super::usage::RawUsage;
use super::world::SHARES_OF_PARENT;

/// Where an association stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Share {
    /// Its part of the shares at its level.
    pub(super) norm_shares: f64,
    /// Sum of the shares at its level; 0 for the root.
    pub(super) level_shares: u32,
    /// Its part of all usage; none for the root.
    pub(super) norm_usage: Option<f64>,
    /// Its part of the usage of the account above.
    pub(super) effective_usage: f64,
    /// Shares over usage; none where `fairshare=parent` leaves it out, and for the root.
    pub(super) level: Option<f64>,
    /// Rank among all users, between 0 and 1; 0 for accounts.
    pub(super) factor: f64,
}

/// The shares of every association, by position.
pub(super) fn shares(tree: &Tree<'_>, usage: &[RawUsage]) -> Vec<Share> {
    let above = accounts_that_share(tree);
    let mut below: Vec<Vec<usize>> = vec![Vec::new(); tree.list.len()];
    for (at, above) in above.iter().enumerate() {
        if let Some(above) = above
            && !tree.list[at].deleted
        {
            below[*above].push(at);
        }
    }
    let takes_from_above = |at: usize| tree.list[at].shares == SHARES_OF_PARENT;
    let level_shares: Vec<u32> = below
        .iter()
        .map(|children| {
            let own = children.iter().filter(|at| !takes_from_above(**at));
            own.fold(0_u32, |sum, at| sum.saturating_add(tree.list[*at].shares))
        })
        .collect();
    let mut shares = vec![Share::default(); tree.list.len()];
    let all = usage.first().map_or(0.0, |root| root.billing);
    for at in 0..shares.len() {
        let Some(account) = above[at] else {
            shares[at].effective_usage = 1.0;
            continue;
        };
        let (shares_of, level) = if takes_from_above(at) {
            (account, above[account].map_or(0, |higher| level_shares[higher]))
        } else {
            (at, level_shares[account])
        };
        let share = &mut shares[at];
        share.level_shares = level_shares[account];
        share.norm_shares = part(f64::from(tree.list[shares_of].shares), f64::from(level));
        share.norm_usage = Some(part(usage[at].billing, all).min(1.0));
        share.effective_usage = part(usage[at].billing, usage[account].billing);
        share.level = match (takes_from_above(at), tree.list[at].user.is_some()) {
            (true, true) => Some(f64::INFINITY),
            (true, false) => None,
            (false, _) if share.norm_shares == 0.0 => Some(0.0),
            (false, _) => Some(share.norm_shares / share.effective_usage),
        };
    }
    let users = tree.list.iter().filter(|a| !a.deleted && a.user.is_some()).count();
    let mut ranking = Ranking { tree, below: &below, users, rank: users, rank_without_ties: users, shares };
    if let Some(children) = below.first() {
        ranking.rank(children.clone(), false);
    }
    ranking.shares
}

fn part(of: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { of / whole }
}

/// For each association the nearest account above that does not itself pass its place on with `fairshare=parent`.
fn accounts_that_share(tree: &Tree<'_>) -> Vec<Option<usize>> {
    (0..tree.list.len())
        .map(|at| {
            let mut above = tree.parent[at]?;
            while tree.list[above].shares == SHARES_OF_PARENT
                && let Some(higher) = tree.parent[above]
            {
                above = higher;
            }
            Some(above)
        })
        .collect()
}

/// The walk that gives users their rank: better-served branches later, equal ones together.
struct Ranking<'a> {
    tree: &'a Tree<'a>,
    below: &'a [Vec<usize>],
    users: usize,
    rank: usize,
    rank_without_ties: usize,
    shares: Vec<Share>,
}

impl Ranking<'_> {
    fn rank(&mut self, mut siblings: Vec<usize>, account_is_tied: bool) {
        let level = |shares: &[Share], at: usize| shares[at].level.unwrap_or(f64::from(u32::MAX - 1));
        let is_user = |at: usize| self.tree.list[at].user.is_some();
        siblings.sort_by(|a, b| {
            let by_level = level(&self.shares, *b).total_cmp(&level(&self.shares, *a));
            by_level.then_with(|| is_user(*b).cmp(&is_user(*a)))
        });
        let mut earlier: Option<f64> = None;
        let mut next = 0;
        while next < siblings.len() {
            let at = siblings[next];
            let here = level(&self.shares, at);
            let tied = if next == 0 && account_is_tied { true } else { earlier == Some(here) };
            if self.tree.list[at].user.is_some() {
                if !tied {
                    self.rank = self.rank_without_ties;
                }
                self.shares[at].factor = self.rank as f64 / self.users as f64;
                self.rank_without_ties = self.rank_without_ties.saturating_sub(1);
            } else {
                // 22.05 means to merge tied accounts here but stops at the first account it meets, so none are.
                self.rank(self.below[at].clone(), tied);
            }
            earlier = Some(here);
            next += 1;
        }
    }
}
