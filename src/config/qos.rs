//! `[qos]`: the names behind the levels, and how an account is blocked.

use super::document::{Item, Section};
use super::print::{Printer, exact_value};
use crate::core::evaluate::{Lever, Rung};
use crate::core::exact::Exact;
use crate::core::name::QosName;

/// QOS of an account within its budget.
pub const NORMAL: &str = "normal";
/// QOS of an account that has used its budget.
pub const SLOWDOWN: &str = "slowdown";
/// QOS of an account that has used its grace as well.
pub const BLOCKED: &str = "blocked";
/// Percentages of the default ladder: the budget, and the budget with the server's default grace of 20 %.
pub const LADDER_PERCENT: [i128; 2] = [100, 120];

const QOS_ALLOWED: &str = "the name of a QOS that `sacctmgr show qos` shows";

const LEVERS: [(&str, Lever); 2] = [("qos", Lever::Qos), ("submit", Lever::Submit)];

fn lever_word(lever: Lever) -> &'static str {
    match lever {
        Lever::Qos => "qos",
        Lever::Submit => "submit",
    }
}

/// The QOS of the levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qos {
    /// Within the budget.
    pub normal: QosName,
    /// Budget used.
    pub slowdown: QosName,
    /// Grace used.
    pub blocked: QosName,
    /// For strategy `progressive`: ascending in percent, never empty.
    pub ladder: Vec<Rung>,
    /// How an account is blocked.
    pub lever: Lever,
}

impl Qos {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Qos> {
        let mut level = |key, default| {
            section.or(key, constant(default), |item| item.parsed(QOS_ALLOWED, QosName::parse))
        };
        let (normal, slowdown, blocked) =
            (level("normal", NORMAL), level("slowdown", SLOWDOWN), level("blocked", BLOCKED));
        let lever = section.or("lever", Lever::Qos, |item| item.one_of(&LEVERS));
        let ladder = section.optional("ladder", read_ladder);
        let (normal, slowdown, blocked) = (normal?, slowdown?, blocked?);
        if normal == slowdown || slowdown == blocked || normal == blocked {
            return section.wrong("two levels have the same QOS", "a QOS of its own for each level");
        }
        let ladder = ladder?.unwrap_or_else(|| {
            let percent = LADDER_PERCENT.map(Exact::whole).into_iter();
            percent
                .zip([&slowdown, &blocked])
                .map(|(percent, qos)| Rung { percent, qos: qos.clone() })
                .collect()
        });
        Some(Qos { normal, slowdown, blocked, ladder, lever: lever? })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.table("qos");
        to.key("normal", self.normal.as_str());
        to.key("slowdown", self.slowdown.as_str());
        to.key("blocked", self.blocked.as_str());
        to.key("lever", lever_word(self.lever));
        let rung = |rung: &Rung| {
            let entries = [("percent", exact_value(rung.percent)), ("qos", rung.qos.as_str().into())];
            toml::Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        };
        to.key("ladder", self.ladder.iter().map(rung).collect::<Vec<_>>());
    }
}

fn constant(name: &str) -> QosName {
    QosName::parse(name).expect("the defaults are names of QOS")
}

fn read_ladder(item: &Item<'_>) -> Option<Vec<Rung>> {
    let mut below = Exact::ZERO;
    let ladder = item.list(|entry| {
        entry.section(|section| {
            let percent = section.required("percent", |item| {
                let percent = item.exact()?;
                if percent <= below {
                    return item.wrong("it is not above the rung before it", format!("more than {below}"));
                }
                below = percent;
                Some(percent)
            });
            let qos = section.required("qos", |item| item.parsed(QOS_ALLOWED, QosName::parse));
            Some(Rung { percent: percent?, qos: qos? })
        })
    })?;
    if ladder.is_empty() {
        return item.wrong(
            "an empty ladder would never slow anyone down",
            "at least one { percent = ..., qos = ... }; leave the key out for slowdown at 100 and blocked at 120",
        );
    }
    Some(ladder)
}
