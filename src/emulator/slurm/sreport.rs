//! `sreport cluster AccountUtilizationByUser`: rolled-up usage of accounts, with everything below them, and of users.

use super::call::Call;
use super::getopt::{self, Opt, Value, flag, long_only, with_value};
use super::names::{abbreviates, add_names, begins_like, signed_prefix};
use super::table::{Cell, Column, Layout, Table};
use super::terminal::{Output, Terminal};
use super::times;
use super::tree::{Tree, TreeNames};
use super::tres::{Amounts, BILLING, CPU, ENERGY, Tres};
use super::usage::start_of_hour;
use super::world::World;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, HashSet};

const LOCAL: char = '\u{1}';
const FEDERATION: char = '\u{2}';

const OPTIONS: &[Opt] = &[
    flag('a', &["all_clusters"]),
    with_value('M', &["cluster"]),
    long_only(FEDERATION, &["federation"], Value::None),
    flag('h', &["help", "usage"]),
    long_only(LOCAL, &["local"], Value::None),
    flag('n', &["noheader"]),
    flag('p', &["parsable"]),
    flag('P', &["parsable2"]),
    flag('Q', &["quiet"]),
    with_value('s', &[]),
    with_value('t', &[]),
    with_value('T', &["tres"]),
    flag('v', &["verbose"]),
    flag('V', &["version"]),
];

/// How usage is written: `-t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeFormat {
    Seconds,
    Minutes,
    Hours,
    Percent,
    SecondsPercent,
    MinutesPercent,
    HoursPercent,
}

impl TimeFormat {
    /// Name, its shortest form, and its title, in the order in which names are compared.
    const KNOWN: [(&'static str, usize, &'static str, TimeFormat); 7] = [
        ("SecPer", 6, "Seconds/Percentage of Total", TimeFormat::SecondsPercent),
        ("MinPer", 6, "Minutes/Percentage of Total", TimeFormat::MinutesPercent),
        ("HourPer", 6, "Hours/Percentage of Total", TimeFormat::HoursPercent),
        ("Seconds", 1, "Seconds", TimeFormat::Seconds),
        ("Minutes", 1, "Minutes", TimeFormat::Minutes),
        ("Hours", 1, "Hours", TimeFormat::Hours),
        ("Percent", 1, "Percentage of Total", TimeFormat::Percent),
    ];

    fn title(self) -> &'static str {
        TimeFormat::KNOWN.iter().find(|known| known.3 == self).map_or("", |known| known.2)
    }

    fn adds_percent(self) -> bool {
        matches!(self, TimeFormat::SecondsPercent | TimeFormat::MinutesPercent | TimeFormat::HoursPercent)
    }

    /// Used seconds, of this total. The two numbers that Slurm keeps for "not set" leave a blank (22.05.8).
    fn write(self, seconds: u64, total: u64) -> Cell {
        if seconds == u64::from(u32::MAX) || seconds == u64::from(u32::MAX) - 1 {
            return Cell::Blank;
        }
        let percent = seconds as f64 / total.max(1) as f64 * 100.0;
        let exact = seconds as f64;
        Cell::Number(match self {
            TimeFormat::Seconds => seconds.to_string(),
            TimeFormat::Minutes => format!("{:.0}", exact / 60.0),
            TimeFormat::Hours => format!("{:.0}", exact / 3600.0),
            TimeFormat::Percent => format!("{percent:.2}%"),
            TimeFormat::SecondsPercent => format!("{seconds}({percent:.2}%)"),
            TimeFormat::MinutesPercent => format!("{:.0}({percent:.2}%)", exact / 60.0),
            TimeFormat::HoursPercent => format!("{:.0}({percent:.2}%)", exact / 3600.0),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Account,
    Cluster,
    Login,
    Proper,
    TresName,
    Used,
    Energy,
    /// A column of other reports, blank in this one.
    Nothing,
}

/// Name, its shortest form, title, width, and what it shows, in the order in which names are compared.
const FIELDS: [(&str, usize, &str, i32, Field); 13] = [
    ("Accounts", 2, "Account", 15, Field::Account),
    ("allocated", 2, "Allocated", 12, Field::Nothing),
    ("Cluster", 2, "Cluster", 9, Field::Cluster),
    ("down", 1, "Down", 10, Field::Nothing),
    ("idle", 1, "Idle", 12, Field::Nothing),
    ("Login", 1, "Login", 9, Field::Login),
    ("PlannedDown", 2, "PLND Down", 10, Field::Nothing),
    ("Proper", 2, "Proper Name", 15, Field::Proper),
    ("reported", 3, "Reported", 12, Field::Nothing),
    ("TresName", 5, "TRES Name", 14, Field::TresName),
    ("Used", 1, "Used", 10, Field::Used),
    ("WCKey", 2, "WCKey", 15, Field::Nothing),
    ("Energy", 1, "Energy", 10, Field::Energy),
];

struct Session<'a> {
    world: &'a World,
    call: &'a Call<'a>,
    out: Terminal,
    failed: bool,
    header: bool,
    quiet: bool,
    layout: Layout,
    time_format: TimeFormat,
    clusters: Vec<String>,
    all_clusters: bool,
    tres: Option<String>,
}

/// Runs `sreport`.
pub(super) fn run(world: &World, call: &Call<'_>) -> Output {
    let mut session = Session {
        world,
        call,
        out: Terminal::default(),
        failed: false,
        header: true,
        quiet: false,
        layout: Layout::Columns,
        time_format: TimeFormat::Minutes,
        clusters: Vec::new(),
        all_clusters: false,
        tres: call.env.get("SREPORT_TRES").cloned(),
    };
    let words = match session.options() {
        Ok(Some(words)) => words,
        Ok(None) => return session.out.exit(0),
        Err(complaint) => {
            session.out.complain(&complaint);
            return session.out.exit(1);
        }
    };
    if !world.services.slurmdbd {
        let last = call.fatal("Problem connecting to the database: Connection refused");
        session.out.complain(&format!("{}{last}", call.no_database(world)));
        return session.out.exit(1);
    }
    match session.chosen_tres() {
        Ok(tres) => session.command(&words, &tres),
        Err(complaint) => session.fail(&call.fatal(&complaint)),
    }
    let status = i32::from(session.failed);
    session.out.exit(status)
}

impl<'a> Session<'a> {
    /// Reads the options; the words that follow, or `None` when there is nothing more to do.
    fn options(&mut self) -> Result<Option<Vec<String>>, String> {
        let parsed = getopt::parse(self.call.program, self.call.args, OPTIONS)
            .map_err(|(_, complaint)| format!("{complaint}Try \"sreport --help\" for more information\n"))?;
        let mut cluster_options = 0;
        for (id, value) in &parsed.options {
            match id {
                'a' => {
                    self.all_clusters = true;
                    cluster_options += 1;
                }
                'M' => {
                    self.clusters.clear();
                    add_names(&mut self.clusters, value, false);
                    cluster_options += 1;
                }
                &LOCAL => cluster_options += 1,
                'n' => self.header = false,
                'p' => self.layout = Layout::Separated,
                'P' => self.layout = Layout::Joined,
                'Q' => self.quiet = true,
                't' => {
                    let known = TimeFormat::KNOWN.iter().find(|known| abbreviates(value, known.0, known.1));
                    match known {
                        Some(known) => self.time_format = known.3,
                        None => self.out.complain(&format!("unknown time format {value}")),
                    }
                }
                'T' => self.tres = Some(value.clone()),
                'V' => {
                    self.out.print(&format!("slurm-wlm {}\n", self.world.version));
                    return Ok(None);
                }
                'h' | 's' => return Err(self.call.not_emulated(&format!("option -{id}"))),
                _ => {}
            }
        }
        if cluster_options > 1 {
            return Err(
                "Only one cluster option can be used (--all_clusters OR --cluster OR --local)\n".to_owned()
            );
        }
        Ok(Some(parsed.words))
    }

    fn fail(&mut self, text: &str) {
        self.out.complain(text);
        self.failed = true;
    }

    /// The resources to report on, in the order of `-T`; CPUs without it.
    fn chosen_tres(&self) -> Result<Vec<&'a Tres>, String> {
        let Some(list) = &self.tres else { return Ok(self.world.tres.by_id(CPU).into_iter().collect()) };
        let mut chosen = Vec::new();
        for name in list.split(',').filter(|name| !name.is_empty()) {
            if name.eq_ignore_ascii_case("ALL") {
                return Ok(self.world.tres.iter().collect());
            }
            let of_percent = self.time_format == TimeFormat::Percent || self.time_format.adds_percent();
            if name.eq_ignore_ascii_case("node") && of_percent {
                return Err(
                    "TRES node usage is no longer reported in percent format reports.  Please use TRES CPU \
                            instead."
                        .to_owned(),
                );
            }
            chosen.extend(self.world.tres.by_name(name));
        }
        if chosen.is_empty() {
            return Err("No valid TRES given".to_owned());
        }
        Ok(chosen)
    }

    fn command(&mut self, words: &[String], tres: &[&Tres]) {
        let Some((keyword, rest)) = words.split_first() else {
            let text = self.call.not_emulated("the interactive mode");
            return self.fail(&text);
        };
        let is = |full: &str, least: usize| abbreviates(keyword, full, least);
        if is("cluster", 1) {
            match rest.split_first() {
                Some((report, conditions)) => self.cluster_report(report, conditions, tres),
                None if self.quiet => self.failed = true,
                None => self.fail(&format!("too few arguments for keyword:{keyword}\n")),
            }
        } else if is("version", 4) {
            if !rest.is_empty() {
                self.fail(&format!("too many arguments for {keyword} keyword\n"));
            }
            self.out.print(&format!("slurm-wlm {}\n", self.world.version));
        } else if is("job", 1) || is("reservation", 2) || is("resv", 2) || is("user", 1) || is("help", 2) {
            let text = self.call.not_emulated(&format!("keyword {keyword}"));
            self.fail(&text);
        } else {
            self.fail(&format!("invalid keyword: {keyword}\n"));
        }
    }

    fn cluster_report(&mut self, report: &str, conditions: &[String], tres: &[&Tres]) {
        if begins_like(report, "AccountUtilizationByUser", 1) {
            return self.account_utilization_by_user(conditions, tres);
        }
        let others = [("UserUtilizationByAccount", 18), ("Utilization", 2), ("WCKeyUtilizationByUser", 1)];
        if others.iter().any(|(name, length)| begins_like(report, name, *length))
            || begins_like(report, "UA", 2)
            || begins_like(report, "UW", 2)
        {
            let text = self.call.not_emulated(&format!("report {report}"));
            return self.fail(&text);
        }
        self.fail(&format!(
            "Not valid report {report}\nValid cluster reports are, \"AccountUtilizationByUser\", \
             \"UserUtilizationByAccount\", \"UserUtilizationByWckey\", \"Utilization\", and \
             \"WCKeyUtilizationByUser\"\n"
        ));
    }

    fn account_utilization_by_user(&mut self, words: &[String], tres: &[&Tres]) {
        let conditions = self.conditions(words);
        let fields = self.fields(&conditions);
        let (from, to) = conditions.window(&self.call.zone, self.call.now);
        if self.header {
            self.title(from, to);
        }
        let reports_here = self.all_clusters
            || conditions.all_clusters
            || conditions.clusters.is_empty()
            || conditions.clusters.contains(&self.world.cluster);
        let tree = self.world.tree();
        let usage = self.usage(&tree, from, to);
        let mut rows = Vec::new();
        if reports_here {
            let chosen: Vec<usize> = (0..tree.list.len())
                .filter(|at| !usage[*at].is_empty() && conditions.fit(&tree, *at))
                .collect();
            rows = tree.shown(&chosen, &self.world.cluster);
        }
        let with_energy = fields.iter().any(|(_, field, _)| *field == Field::Energy);
        let first = rows.first().map(|at| &usage[*at]);
        let table = self.table(&fields, first, tres, with_energy);
        if self.header {
            table.header(&mut self.out);
        }
        let capacity = self.capacity(to.min(self.world.rolled_up_to()) - from);
        let mut names = TreeNames::default();
        for at in rows {
            for tres in tres {
                let row =
                    Row { world: self.world, tree: &tree, at, usage: &usage[at], capacity: &capacity, tres };
                let mut cell =
                    |field: Field| row.cell(field, self.time_format, conditions.tree.then_some(&mut names));
                let cells: Vec<Cell> = fields.iter().map(|(_, field, _)| cell(*field)).collect();
                table.row(&cells, &mut self.out);
            }
        }
    }

    fn title(&mut self, from: i64, to: i64) {
        let (style, complaint) = self.call.time_style();
        if let Some(complaint) = complaint {
            self.out.complain(&self.call.error(&complaint));
        }
        let rule = "-".repeat(80);
        let of = match (self.time_format, &self.tres) {
            (TimeFormat::Percent, _) => "",
            (_, Some(_)) => "TRES ",
            (_, None) => "CPU ",
        };
        self.out.print(&format!(
            "{rule}\nCluster/Account/User Utilization {} - {} ({} secs)\nUsage reported in {of}{}\n{rule}\n",
            style.write(from),
            style.write(to - 1),
            to - from,
            self.time_format.title()
        ));
    }

    /// Usage of every association with everything below it. slurmdbd cuts the window to whole hours of its own zone.
    fn usage(&self, tree: &Tree<'_>, from: i64, to: i64) -> Vec<Amounts> {
        let zone = times::zone_of(&BTreeMap::new(), &self.world.time_zone);
        let own = self.world.rolled_usage(start_of_hour(from, &zone), start_of_hour(to, &zone));
        let mut usage: Vec<Amounts> = tree
            .list
            .iter()
            .map(|association| own.get(&association.id).cloned().unwrap_or_default())
            .collect();
        for at in (0..usage.len()).rev() {
            if let Some(above) = tree.parent[at] {
                let below = usage[at].clone();
                for (id, seconds) in below {
                    *usage[above].entry(id).or_default() += seconds;
                }
            }
        }
        usage
    }

    /// What the cluster could have given in so many seconds.
    fn capacity(&self, seconds: i64) -> Amounts {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        let mut nodes = HashSet::new();
        let mut capacity = Amounts::new();
        for partition in self.world.partitions.iter().filter(|partition| nodes.insert(&partition.nodes)) {
            for (id, count) in &partition.tres {
                *capacity.entry(*id).or_default() += count * seconds;
            }
            let billing = self.world.billable(&partition.name, &partition.tres) as u64;
            *capacity.entry(BILLING).or_default() += billing * seconds;
        }
        capacity
    }
}

#[derive(Default)]
struct Conditions {
    all_clusters: bool,
    clusters: Vec<String>,
    accounts: Vec<String>,
    users: Vec<String>,
    format: Vec<String>,
    tree: bool,
    start: i64,
    end: i64,
}

impl Session<'_> {
    fn conditions(&mut self, words: &[String]) -> Conditions {
        let mut conditions = Conditions { clusters: self.clusters.clone(), ..Conditions::default() };
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                if abbreviates(word, "all_clusters", 1) {
                    conditions.all_clusters = true;
                } else if abbreviates(word, "Tree", 4) {
                    conditions.tree = true;
                } else {
                    add_names(&mut conditions.users, word, false);
                }
                continue;
            };
            let is = |full: &str, least: usize| abbreviates(key, full, least);
            if is("Users", 1) {
                add_names(&mut conditions.users, value, false);
            } else if is("Accounts", 2) || is("Acct", 4) {
                add_names(&mut conditions.accounts, value, false);
            } else if is("Clusters", 1) {
                add_names(&mut conditions.clusters, value, false);
            } else if is("End", 1) {
                conditions.end = self.time(value).min(self.call.now);
            } else if is("Format", 1) {
                add_names(&mut conditions.format, value, false);
            } else if is("Start", 1) {
                conditions.start = self.time(value);
            } else {
                self.fail(&format!(" Unknown condition: {word}\nUse keyword set to modify value\n"));
            }
        }
        conditions
    }

    /// A time that cannot be read is complained about and counts as not given (22.05.8, status 0).
    fn time(&mut self, text: &str) -> i64 {
        match times::parse_time(text, &self.call.zone, self.call.now) {
            Ok(at) => at,
            Err(complaint) => {
                self.out.complain(&complaint);
                0
            }
        }
    }

    /// Columns with their titles and widths; unknown names are complained about and left out.
    fn fields(&mut self, conditions: &Conditions) -> Vec<(&'static str, Field, i32)> {
        let mut names = conditions.format.clone();
        if names.is_empty() {
            let usual = if self.tres.is_some() {
                "Cluster,Ac,Login,Proper,TresName,Used"
            } else {
                "Cluster,Ac,Login,Proper,Used,Energy"
            };
            add_names(&mut names, usual, false);
        }
        let mut fields = Vec::new();
        for name in &names {
            let (name, width) = match name.split_once('%') {
                Some((name, width)) => (name, i32::try_from(signed_prefix(width).0).unwrap_or(0)),
                None => (name.as_str(), 0),
            };
            let known = FIELDS.iter().find(|(full, least, ..)| abbreviates(name, full, *least));
            let Some((_, _, title, usual, field)) = known else {
                self.fail(&format!(" Unknown field '{name}'\n"));
                continue;
            };
            let usual = if *field == Field::Account && conditions.tree { -20 } else { *usual };
            fields.push((*title, *field, if width == 0 { usual } else { width }));
        }
        fields
    }

    /// The table; columns of usage are as wide as the first row needs.
    fn table(
        &self,
        fields: &[(&'static str, Field, i32)],
        first: Option<&Amounts>,
        tres: &[&Tres],
        with_energy: bool,
    ) -> Table<'static> {
        let used = |id: u32| first.and_then(|usage| usage.get(&id)).copied().unwrap_or(0);
        let largest =
            if with_energy { used(CPU) } else { tres.iter().map(|tres| used(tres.id)).max().unwrap_or(0) };
        let columns = fields
            .iter()
            .map(|(title, field, width)| Column {
                title: (*title).to_owned(),
                width: match field {
                    Field::Used => self.usage_width(largest),
                    Field::Energy => self.usage_width(used(ENERGY)),
                    _ => *width,
                },
            })
            .collect();
        Table { columns, layout: self.layout, separator: "|" }
    }

    fn usage_width(&self, largest: u64) -> i32 {
        let digits = i32::try_from(largest.to_string().len()).unwrap_or(0);
        digits.clamp(8, 25) + if self.time_format.adds_percent() { 9 } else { 0 }
    }
}

impl Conditions {
    /// The window in whole hours of local time: minutes from 30 on are rounded up, and it is at least one hour long.
    /// Without a start it begins yesterday, without an end it ends today, both at midnight.
    fn window(&self, zone: &TimeZone, now: i64) -> (i64, i64) {
        let midnight = |days_ago: i64| {
            let today = times::local(now, zone).date();
            let day = today.checked_sub(jiff::Span::new().days(days_ago)).unwrap_or(today);
            day.to_zoned(zone.clone()).map_or(0, |zoned| zoned.timestamp().as_second())
        };
        let rounded = |at: i64| {
            let hour = start_of_hour(at, zone);
            let minutes = (at - hour + 30).div_euclid(60);
            if minutes >= 30 { hour + 3600 } else { hour }
        };
        let from = if self.start == 0 { midnight(1) } else { rounded(self.start) };
        let to = if self.end == 0 { midnight(0) } else { rounded(self.end) };
        (from, if to - from < 3600 { from + 3600 } else { to })
    }

    /// True for the wanted users, and for the wanted accounts with everything below them.
    fn fit(&self, tree: &Tree<'_>, at: usize) -> bool {
        let association = &tree.list[at];
        let user_fits =
            self.users.is_empty() || association.user.as_ref().is_some_and(|user| self.users.contains(user));
        user_fits
            && (self.accounts.is_empty()
                || tree.upwards(at).any(|above| self.accounts.contains(&tree.list[above].account)))
    }
}

struct Row<'a> {
    world: &'a World,
    tree: &'a Tree<'a>,
    at: usize,
    usage: &'a Amounts,
    capacity: &'a Amounts,
    tres: &'a Tres,
}

impl Row<'_> {
    fn cell(&self, field: Field, format: TimeFormat, names: Option<&mut TreeNames>) -> Cell {
        let association = &self.tree.list[self.at];
        let amount = |of: &Amounts, id: u32| of.get(&id).copied().unwrap_or(0);
        let used = |id: u32| format.write(amount(self.usage, id), amount(self.capacity, id));
        match (field, names) {
            (Field::Account, Some(names)) => {
                let parent = association.parent.as_deref();
                Cell::Text(names.text(&association.account, association.user.as_deref(), parent))
            }
            (Field::Account, None) => Cell::Text(association.account.clone()),
            (Field::Cluster, _) => Cell::Text(self.world.cluster.clone()),
            (Field::Login, _) => Cell::text(association.user.as_deref()),
            // The user database of the host knows root's name in full; others have none.
            (Field::Proper, _) if association.user.as_deref() == Some("root") => {
                Cell::Text("root".to_owned())
            }
            (Field::Proper | Field::Nothing, _) => Cell::Blank,
            (Field::TresName, _) => Cell::Text(self.tres.full_name()),
            (Field::Used, _) => used(self.tres.id),
            (Field::Energy, _) => used(ENERGY),
        }
    }
}
