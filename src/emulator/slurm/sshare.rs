//! `sshare`: shares, raw usage since the last reset, and limits of the associations, as the controller knows them.

use super::call::Call;
use super::getopt::{self, Opt, Value, flag, long_only, with_value};
use super::limits::PerTres;
use super::names::{add_names, begins_like, signed_prefix};
use super::shares::{Share, shares};
use super::table::{Cell, Column, Layout, Table};
use super::terminal::{Output, Terminal};
use super::tree::{Tree, TreeNames};
use super::usage::RawUsage;
use super::world::{SHARES_OF_PARENT, World};
use std::collections::HashMap;

const HELP: char = '\u{1}';

const OPTIONS: &[Opt] = &[
    with_value('A', &["accounts"]),
    flag('a', &["all"]),
    flag('e', &["helpformat"]),
    flag('h', &[]),
    flag('l', &["long"]),
    flag('m', &["partition"]),
    with_value('M', &["cluster", "clusters"]),
    flag('n', &["noheader"]),
    with_value('o', &["format"]),
    flag('p', &["parsable"]),
    flag('P', &["parsable2"]),
    with_value('u', &["users"]),
    flag('U', &["Users"]),
    flag('v', &["verbose"]),
    flag('V', &["version"]),
    long_only(HELP, &["help", "usage"], Value::None),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Account,
    Cluster,
    EffectiveUsage,
    FairShare,
    GrpTresMins,
    GrpTresRaw,
    Id,
    LevelFs,
    NormShares,
    NormUsage,
    Partition,
    RawShares,
    RawUsage,
    TresRunMins,
    User,
}

/// Width and title of every field, in the order in which their names are compared.
const FIELDS: [(i32, &str, Field); 15] = [
    (-20, "Account", Field::Account),
    (10, "Cluster", Field::Cluster),
    (13, "EffectvUsage", Field::EffectiveUsage),
    (10, "FairShare", Field::FairShare),
    (30, "GrpTRESMins", Field::GrpTresMins),
    (30, "GrpTRESRaw", Field::GrpTresRaw),
    (6, "ID", Field::Id),
    (10, "LevelFS", Field::LevelFs),
    (11, "NormShares", Field::NormShares),
    (11, "NormUsage", Field::NormUsage),
    (12, "Partition", Field::Partition),
    (10, "RawShares", Field::RawShares),
    (11, "RawUsage", Field::RawUsage),
    (30, "TRESRunMins", Field::TresRunMins),
    (10, "User", Field::User),
];

struct Query {
    accounts: Vec<String>,
    users: Vec<String>,
    all_users: bool,
    users_only: bool,
    partitions: bool,
    long: bool,
    header: bool,
    layout: Layout,
    format: String,
    cluster: Option<String>,
}

/// Runs `sshare`.
pub(super) fn run(world: &World, call: &Call<'_>) -> Output {
    let mut out = Terminal::default();
    let status = match read(world, call, &mut out) {
        Ok(Some(query)) => report(world, call, &query, &mut out),
        Ok(None) => 0,
        Err(text) => {
            out.complain(&text);
            1
        }
    };
    out.exit(status)
}

/// Reads the command line; `None` when there is nothing more to do.
fn read(world: &World, call: &Call<'_>, out: &mut Terminal) -> Result<Option<Query>, String> {
    let parsed = getopt::parse(call.program, call.args, OPTIONS)
        .map_err(|(_, complaint)| format!("{complaint}Try \"sshare --help\" for more information\n"))?;
    let mut query = Query {
        accounts: Vec::new(),
        users: Vec::new(),
        all_users: false,
        users_only: false,
        partitions: false,
        long: false,
        header: true,
        layout: Layout::Columns,
        format: String::new(),
        cluster: None,
    };
    for (id, value) in &parsed.options {
        match id {
            'A' => add_names(&mut query.accounts, value, false),
            'a' => query.all_users = true,
            'h' | 'n' => query.header = false,
            'l' => query.long = true,
            'm' => query.partitions = true,
            'M' => query.cluster = Some(cluster_named(world, call, value)?),
            'o' => query.format.push_str(&format!("{value},")),
            'p' => query.layout = Layout::Separated,
            'P' => query.layout = Layout::Joined,
            'u' if value == "-1" => query.all_users = true,
            'u' => {
                query.all_users = false;
                add_users(world, &mut query.users, value)?;
            }
            'U' => query.users_only = true,
            'e' => {
                help_fields(out);
                return Ok(None);
            }
            'V' => {
                out.print(&format!("slurm-wlm {}\n", world.version));
                return Ok(None);
            }
            &HELP => return Err(call.not_emulated("option --help")),
            _ => {}
        }
    }
    if !query.all_users && query.users.is_empty() {
        query.users.push(world.acting_user.clone());
    }
    Ok(Some(query))
}

/// The cluster of `-M`; only the local one has a controller here.
fn cluster_named(world: &World, call: &Call<'_>, name: &str) -> Result<String, String> {
    if !world.services.slurmdbd {
        let last = "There is a problem talking to the database: Connection refused.  Only local cluster communication is \
                    available, remove --cluster from your command line or contact your admin to resolve the problem.";
        return Err(call.no_database(world) + &call.error(last));
    }
    let mut names = Vec::new();
    add_names(&mut names, name, false);
    if names.iter().any(|name| *name == world.cluster || name == "all") {
        return Ok(world.cluster.clone());
    }
    let unknown: String =
        names.iter().map(|name| call.error(&format!("No cluster '{name}' known by database."))).collect();
    let last = format!(
        "'{name}' can't be reached now, or it is an invalid entry for --cluster.  Use 'sacctmgr list clusters' to see \
         available clusters."
    );
    Err(unknown + &call.error(&last))
}

fn add_users(world: &World, users: &mut Vec<String>, value: &str) -> Result<(), String> {
    let mut given = Vec::new();
    add_names(&mut given, value, true);
    for name in given {
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            let uid = u32::try_from(signed_prefix(&name).0).unwrap_or(u32::MAX);
            match world.user_of(uid) {
                Some(user) => users.push(user.to_owned()),
                None => return Err(format!("Invalid user id: {uid}\n")),
            }
        } else {
            users.push(name);
        }
    }
    Ok(())
}

fn help_fields(out: &mut Terminal) {
    for (at, (_, name, _)) in FIELDS.iter().enumerate() {
        match at % 4 {
            0 if at > 0 => out.print("\n"),
            0 => {}
            _ => out.print(" "),
        }
        out.print(&format!("{name:<17}"));
    }
    out.print("\n");
}

fn report(world: &World, call: &Call<'_>, query: &Query, out: &mut Terminal) -> i32 {
    if let Some(cluster) = &query.cluster {
        out.print(&format!("CLUSTER: {cluster}\n"));
    }
    if !world.services.slurmctld {
        out.complain(
            "Couldn't get shares from controller: Unable to contact slurm controller (connect failure)\n",
        );
        return if query.cluster.is_some() { 1 } else { 255 };
    }
    let (columns, fields) = match chosen(call, query) {
        Ok(chosen) => chosen,
        Err(complaint) => {
            out.complain(&complaint);
            return 1;
        }
    };
    let table = Table { columns, layout: query.layout, separator: "|" };
    if query.header {
        table.header(out);
    }
    let tree = world.tree();
    let usage = world.raw_usage(&tree);
    let shares = shares(&tree, &usage);
    let all: Vec<usize> = (0..tree.list.len()).filter(|at| !tree.list[*at].deleted).collect();
    let mut names = TreeNames::default();
    for at in tree.shown(&all, &world.cluster) {
        let association = &tree.list[at];
        let named = |list: &[String], name: &str| list.iter().any(|known| known.eq_ignore_ascii_case(name));
        let user_fits = match &association.user {
            Some(user) => query.all_users || named(&query.users, user),
            None => !query.users_only,
        };
        if !user_fits || (!query.accounts.is_empty() && !named(&query.accounts, &association.account)) {
            continue;
        }
        let row = Row { world, tree: &tree, at, usage: &usage[at], share: &shares[at] };
        let cells: Vec<Cell> = fields.iter().map(|field| row.cell(*field, &mut names)).collect();
        table.row(&cells, out);
    }
    0
}

fn chosen(call: &Call<'_>, query: &Query) -> Result<(Vec<Column>, Vec<Field>), String> {
    let usual = format!(
        "A,User,{}RawShares,NormShares,RawUsage,{}Eff,Fairshare{}",
        if query.partitions { "P," } else { "" },
        if query.long { "NormUsage," } else { "" },
        if query.long { ",LevelFS,GrpTRESMins,TRESRunMins" } else { "" }
    );
    let mut names = Vec::new();
    add_names(&mut names, if query.format.is_empty() { &usual } else { &query.format }, true);
    let mut widths: HashMap<&str, i32> = HashMap::new();
    let mut found = Vec::new();
    for name in &names {
        let (name, width) = match name.split_once('%') {
            Some((name, width)) => (name, i32::try_from(signed_prefix(width).0).unwrap_or(0)),
            None => (name.as_str(), 0),
        };
        let known = FIELDS
            .iter()
            .find(|(_, title, _)| name.len() <= title.len() && begins_like(title, name, name.len()));
        let Some(known) = known else {
            return Err(call.error(&format!("Invalid field requested: \"{name}\"")));
        };
        if width != 0 {
            widths.insert(known.1, width);
        }
        found.push(known);
    }
    let columns = found
        .iter()
        .map(|(width, title, _)| Column {
            title: (*title).to_owned(),
            width: widths.get(title).copied().unwrap_or(*width),
        })
        .collect();
    Ok((columns, found.iter().map(|(_, _, field)| *field).collect()))
}

struct Row<'a> {
    world: &'a World,
    tree: &'a Tree<'a>,
    at: usize,
    usage: &'a RawUsage,
    share: &'a Share,
}

impl Row<'_> {
    fn cell(&self, field: Field, names: &mut TreeNames) -> Cell {
        let association = &self.tree.list[self.at];
        let is_root = self.tree.parent[self.at].is_none();
        match field {
            Field::Account => Cell::Text(names.text(
                &association.account,
                association.user.as_deref(),
                association.parent.as_deref(),
            )),
            Field::Cluster => Cell::Text(self.world.cluster.clone()),
            Field::EffectiveUsage => Cell::Float(self.share.effective_usage),
            Field::FairShare if association.user.is_some() => Cell::Float(self.share.factor),
            Field::FairShare => Cell::Blank,
            Field::GrpTresMins => {
                let limit = association.limits.amounts(PerTres::GrpTresMins);
                self.per_tres(|id| limit.and_then(|limit| limit.get(&id)).copied())
            }
            Field::GrpTresRaw => {
                self.per_tres(|id| Some((self.usage.tres.get(&id).unwrap_or(&0.0) / 60.0) as u64))
            }
            Field::TresRunMins => self.per_tres(|id| Some(self.usage.committed.get(&id).unwrap_or(&0) / 60)),
            Field::Id => Cell::Number(association.id.to_string()),
            Field::LevelFs if association.shares == SHARES_OF_PARENT => Cell::Blank,
            Field::LevelFs => self.share.level.map_or(Cell::Blank, Cell::Float),
            Field::NormShares => Cell::Float(self.share.norm_shares),
            Field::NormUsage => self.share.norm_usage.map_or(Cell::Blank, Cell::Float),
            Field::Partition => Cell::text(association.partition.as_deref()),
            Field::RawShares if is_root => Cell::Blank,
            Field::RawShares if association.shares == SHARES_OF_PARENT => Cell::Text("parent".to_owned()),
            Field::RawShares => Cell::Number(association.shares.to_string()),
            Field::RawUsage => Cell::Number((self.usage.billing as u64).to_string()),
            Field::User => Cell::text(association.user.as_deref()),
        }
    }

    /// `cpu=1,mem=2` in the order of the resources' numbers, without units.
    fn per_tres(&self, amount: impl Fn(u32) -> Option<u64>) -> Cell {
        let parts: Vec<String> = self
            .world
            .tres
            .iter()
            .filter_map(|tres| Some(format!("{}={}", tres.full_name(), amount(tres.id)?)))
            .collect();
        Cell::Text(parts.join(","))
    }
}
