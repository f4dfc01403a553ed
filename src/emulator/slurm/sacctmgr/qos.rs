//! `sacctmgr add|show|modify|delete qos`

use super::super::limits::{Count, PerTres};
use super::super::names::{add_names, signed_prefix, unquoted};
use super::super::table::Cell;
use super::super::times;
use super::super::tres::{Amounts, CPU, INFINITE, MEM, NODE, Units};
use super::super::world::{AdminLevel, Qos};
use super::Session;
use super::columns::Shows;
use super::listing::{amounts, minutes, one_of, text};
use super::request::CLEAR;
use super::word::{Parts, Word};
use std::collections::BTreeMap;

const FLAGS: [&str; 10] = [
    "DenyOnLimit",
    "EnforceUsageThreshold",
    "NoReserve",
    "PartitionMaxNodes",
    "PartitionMinNodes",
    "OverPartQOS",
    "PartitionTimeLimit",
    "RequiresReservation",
    "NoDecay",
    "UsageFactorSafe",
];

/// What QOS are to get.
#[derive(Debug, Default)]
struct QosRequest {
    names: Vec<String>,
    description: Option<String>,
    /// Flags and the sign of their keyword.
    flags: Option<(Option<char>, Vec<String>)>,
    usage_factor: Option<f64>,
    counts: BTreeMap<Count, u32>,
    tres: BTreeMap<PerTres, Amounts>,
    raw_usage: Option<u32>,
    /// Something was given.
    given: bool,
}

/// Which QOS.
#[derive(Debug, Default)]
struct QosCondition {
    names: Vec<String>,
    descriptions: Vec<String>,
    ids: Vec<String>,
    given: bool,
}

#[derive(Clone, Copy)]
enum Setting {
    Count(Count),
    Minutes(Count),
    One(PerTres, u32),
    Tres(PerTres),
}

/// Keywords in the order in which sacctmgr compares them.
const SETTINGS: &[(&str, usize, Setting)] = &[
    ("GraceTime", 3, Setting::Count(Count::GraceTime)),
    ("GrpCPUMins", 7, Setting::One(PerTres::GrpTresMins, CPU)),
    ("GrpCPURunMins", 7, Setting::One(PerTres::GrpTresRunMins, CPU)),
    ("GrpCPUs", 7, Setting::One(PerTres::GrpTres, CPU)),
    ("GrpJobs", 4, Setting::Count(Count::GrpJobs)),
    ("GrpJobsAccrue", 8, Setting::Count(Count::GrpJobsAccrue)),
    ("GrpMemory", 4, Setting::One(PerTres::GrpTres, MEM)),
    ("GrpNodes", 4, Setting::One(PerTres::GrpTres, NODE)),
    ("GrpSubmitJobs", 4, Setting::Count(Count::GrpSubmitJobs)),
    ("GrpTRES", 7, Setting::Tres(PerTres::GrpTres)),
    ("GrpTRESMins", 8, Setting::Tres(PerTres::GrpTresMins)),
    ("GrpTRESRunMins", 8, Setting::Tres(PerTres::GrpTresRunMins)),
    ("GrpWall", 4, Setting::Minutes(Count::GrpWall)),
    ("MaxCPUMinsPerJob", 7, Setting::One(PerTres::MaxTresMins, CPU)),
    ("MaxCPUsPerJob", 7, Setting::One(PerTres::MaxTres, CPU)),
    ("MaxCPUsPerUser", 11, Setting::One(PerTres::MaxTresPerUser, CPU)),
    ("MaxCPUsPU", 9, Setting::One(PerTres::MaxTresPerUser, CPU)),
    ("MaxJobsAccruePerAccount", 17, Setting::Count(Count::MaxJobsAccruePerAccount)),
    ("MaxJobsAccruePA", 15, Setting::Count(Count::MaxJobsAccruePerAccount)),
    ("MaxJobsAccruePerUser", 17, Setting::Count(Count::MaxJobsAccruePerUser)),
    ("MaxJobsAccruePU", 15, Setting::Count(Count::MaxJobsAccruePerUser)),
    ("MaxJobsPerAccount", 11, Setting::Count(Count::MaxJobsPerAccount)),
    ("MaxJobsPA", 9, Setting::Count(Count::MaxJobsPerAccount)),
    ("MaxJobsPerUser", 4, Setting::Count(Count::MaxJobsPerUser)),
    ("MaxJobsPU", 4, Setting::Count(Count::MaxJobsPerUser)),
    ("MaxNodesPerJob", 4, Setting::One(PerTres::MaxTres, NODE)),
    ("MaxNodesPerUser", 8, Setting::One(PerTres::MaxTresPerUser, NODE)),
    ("MaxNodesPU", 8, Setting::One(PerTres::MaxTresPerUser, NODE)),
    ("MaxSubmitJobsPerAccount", 17, Setting::Count(Count::MaxSubmitJobsPerAccount)),
    ("MaxSubmitJobsPA", 15, Setting::Count(Count::MaxSubmitJobsPerAccount)),
    ("MaxSubmitJobsPerUser", 4, Setting::Count(Count::MaxSubmitJobsPerUser)),
    ("MaxSubmitJobsPU", 4, Setting::Count(Count::MaxSubmitJobsPerUser)),
    ("MaxTRESPerAccount", 11, Setting::Tres(PerTres::MaxTresPerAccount)),
    ("MaxTRESPA", 9, Setting::Tres(PerTres::MaxTresPerAccount)),
    ("MaxTRESPerJob", 7, Setting::Tres(PerTres::MaxTres)),
    ("MaxTRESPerNode", 11, Setting::Tres(PerTres::MaxTresPerNode)),
    ("MaxTRESPerUser", 11, Setting::Tres(PerTres::MaxTresPerUser)),
    ("MaxTRESPU", 9, Setting::Tres(PerTres::MaxTresPerUser)),
    ("MaxTRESMinsPerJob", 8, Setting::Tres(PerTres::MaxTresMins)),
    ("MaxTRESRunMinsPA", 16, Setting::Tres(PerTres::MaxTresRunMinsPerAccount)),
    ("MaxTRESRunMinsPU", 8, Setting::Tres(PerTres::MaxTresRunMinsPerUser)),
    ("MaxWallDurationPerJob", 4, Setting::Minutes(Count::MaxWall)),
    ("MinCPUsPerJob", 7, Setting::One(PerTres::MinTres, CPU)),
    ("MinPrioThresh", 4, Setting::Count(Count::MinPrioThresh)),
    ("MinTRESPerJob", 7, Setting::Tres(PerTres::MinTres)),
    ("Priority", 3, Setting::Count(Count::Priority)),
];

impl QosRequest {
    fn apply(&self, qos: &mut Qos) {
        if let Some(description) = &self.description {
            qos.description.clone_from(description);
        }
        if let Some(factor) = self.usage_factor {
            qos.usage_factor = if factor < 0.0 { 1.0 } else { factor };
        }
        match &self.flags {
            Some((Some('+'), names)) => qos.flags.extend(names.clone()),
            Some((Some('-'), names)) => qos.flags.retain(|flag| !names.contains(flag)),
            Some((_, names)) => qos.flags.clone_from(names),
            None => {}
        }
        qos.flags = FLAGS
            .iter()
            .filter(|flag| qos.flags.iter().any(|f| f == *flag))
            .map(|f| (*f).to_owned())
            .collect();
        for (which, number) in &self.counts {
            qos.limits.set_count(*which, (*number != CLEAR).then_some(*number));
        }
        for (which, request) in &self.tres {
            let mut merged = qos.limits.amounts(*which).cloned().unwrap_or_default();
            merged.extend(request.iter().map(|(id, count)| (*id, *count)));
            merged.retain(|_, count| *count != INFINITE);
            qos.limits.set_amounts(*which, merged);
        }
    }
}

impl QosCondition {
    fn is(&self, qos: &Qos) -> bool {
        let holds = |list: &[String], text: &str| {
            list.is_empty() || list.iter().any(|name| name.eq_ignore_ascii_case(text))
        };
        holds(&self.names, &qos.name)
            && holds(&self.descriptions, &qos.description)
            && holds(&self.ids, &qos.id.to_string())
    }
}

impl Session<'_, '_> {
    fn qos_condition(&mut self, words: &[Word<'_>], mut format: Option<&mut Vec<String>>) -> QosCondition {
        let mut condition = QosCondition::default();
        for word in words {
            if word.is_bare("WithDeleted", 5) {
            } else if !word.has_value || word.is("Names", 1) || word.is("QOSLevel", 1) {
                add_names(&mut condition.names, word.value, false);
                condition.given = true;
            } else if word.is("Clusters", 1) {
                condition.given = true;
            } else if word.is("Descriptions", 1) {
                add_names(&mut condition.descriptions, word.value, false);
                condition.given = true;
            } else if word.is("Format", 1) {
                if let Some(format) = format.as_deref_mut() {
                    add_names(format, word.value, false);
                }
            } else if word.is("Ids", 1) {
                self.ids(&mut condition.ids, word.value);
                condition.given = true;
            } else {
                self.fail(&format!(
                    " Unknown condition: {}\n Use keyword 'set' to modify SLURM_PRINT_VALUE\n",
                    word.raw
                ));
            }
        }
        condition
    }

    fn qos_request(&mut self, words: &[Word<'_>]) -> QosRequest {
        let mut request = QosRequest::default();
        let mut sign = None;
        for word in words {
            sign = word.sign.or(sign);
            if !word.has_value || word.is("Name", 1) {
                add_names(&mut request.names, word.value, false);
            } else if word.is("Description", 1) {
                request.description.get_or_insert_with(|| unquoted(word.value, false));
                request.given = true;
            } else if word.is("Flags", 2) {
                self.qos_flags(&mut request, word, sign);
            } else if word.is("UsageFactor", 6) {
                if let Ok(factor) = word.value.parse::<f64>() {
                    request.usage_factor = Some(factor);
                    request.given = true;
                } else {
                    self.error(&format!("Invalid value for UsageFactor ({})", word.value));
                }
            } else if word.is("RawUsage", 7) {
                if let Some(usage) = self.number(word.value, "RawUsage") {
                    request.raw_usage = Some(usage);
                    request.given = true;
                }
            } else if let Some((full, _, setting)) =
                SETTINGS.iter().find(|(full, least, _)| word.is(full, *least))
            {
                self.qos_setting(&mut request, full, *setting, word);
            } else if ["LimitFactor", "Preempt", "PreemptMode", "PreemptExemptTime", "UsageThreshold"]
                .iter()
                .any(|full| word.is(full, 6))
            {
                self.fail(&self.call.not_emulated(&format!("{} of a QOS", word.key)));
            } else {
                self.failed = true;
                self.out.print(&format!(
                    " Unknown option: {}\n Use keyword 'where' to modify condition\n",
                    word.raw
                ));
            }
        }
        request
    }

    fn qos_setting(&mut self, request: &mut QosRequest, full: &str, setting: Setting, word: &Word<'_>) {
        match setting {
            Setting::Count(which) => {
                if let Some(number) = self.number(word.value, full) {
                    request.counts.insert(which, number);
                    request.given = true;
                }
            }
            Setting::Minutes(which) => match self.minutes(word.value) {
                Some(number) => {
                    request.counts.insert(which, number);
                    request.given = true;
                }
                None => self.fail(&format!(" Bad {} time format: {}\n", which.name(), word.raw)),
            },
            Setting::One(which, id) => {
                if let Some(number) = self.long_number(word.value, full) {
                    request.tres.entry(which).or_default().insert(id, number);
                    request.given = true;
                }
            }
            Setting::Tres(which) => {
                if let Some(pairs) = self.amounts(word.value) {
                    request.tres.entry(which).or_default().extend(pairs);
                    request.given = true;
                }
            }
        }
    }

    fn qos_flags(&mut self, request: &mut QosRequest, word: &Word<'_>, sign: Option<char>) {
        request.given = true;
        if signed_prefix(word.value).0 == -1 {
            request.flags = Some((None, Vec::new()));
            return;
        }
        let given = word.value.to_lowercase();
        let names: Vec<String> = given
            .split(',')
            .filter_map(|part| FLAGS.iter().find(|flag| part.contains(&flag.to_lowercase())))
            .map(|flag| (*flag).to_owned())
            .collect();
        if names.is_empty() {
            self.failed = true;
            self.out.print(&format!(
                " Unknown QOS flag used in:\n  '{}'\n Valid QOS flags are\n  '{}'\n",
                word.value,
                FLAGS.join(",")
            ));
        } else {
            request.flags = Some((sign, names));
        }
    }

    /// `add qos`
    pub(super) fn add_qos(&mut self, words: &[String]) -> bool {
        let mut request = self.qos_request(&Parts::conditions(words));
        if self.failed {
            return false;
        }
        if request.names.is_empty() {
            self.fail(" Need name of qos to add.\n");
            return true;
        }
        let mut names = std::mem::take(&mut request.names);
        names.retain(|name| self.world.qos_named(name).is_none());
        let Some(last) = names.last() else {
            self.out.print(" Nothing new added.\n");
            return false;
        };
        let description = request.description.clone().unwrap_or_else(|| last.clone());
        self.out.print(" Adding QOS(s)\n");
        for name in &names {
            self.out.print(&format!("  {name}\n"));
        }
        self.out.print(&format!(" Settings\n  Description    = {description}\n"));
        self.print_qos_settings(&request);
        if !self.may(AdminLevel::Administrator) {
            self.fail(&format!(" Problem adding QOS: {}\n", super::DENIED));
            return false;
        }
        if self.committed() {
            for name in names {
                let mut qos = Qos::new(0, &name);
                qos.limits.set_count(Count::Priority, Some(0));
                qos.limits.set_count(Count::GraceTime, Some(0));
                request.apply(&mut qos);
                self.world.put_qos(qos);
            }
        }
        true
    }

    fn print_qos_settings(&mut self, request: &QosRequest) {
        let mut lines: Vec<String> = Vec::new();
        let mut line = |label: &str, value: String| lines.push(format!("  {label:<25}= {value}\n"));
        if let Some((_, flags)) = &request.flags {
            line("Flags", flags.join(","));
        }
        const ORDER: [Result<Count, PerTres>; 28] = [
            Ok(Count::GraceTime),
            Ok(Count::GrpJobs),
            Ok(Count::GrpJobsAccrue),
            Ok(Count::GrpSubmitJobs),
            Err(PerTres::GrpTres),
            Err(PerTres::GrpTresMins),
            Err(PerTres::GrpTresRunMins),
            Ok(Count::GrpWall),
            Ok(Count::MaxJobsAccruePerAccount),
            Ok(Count::MaxJobsAccruePerUser),
            Ok(Count::MaxJobsPerAccount),
            Ok(Count::MaxJobsPerUser),
            Ok(Count::MaxSubmitJobsPerAccount),
            Ok(Count::MaxSubmitJobsPerUser),
            Err(PerTres::MaxTresPerAccount),
            Err(PerTres::MaxTres),
            Err(PerTres::MaxTresPerNode),
            Err(PerTres::MaxTresPerUser),
            Ok(Count::MinPrioThresh),
            Err(PerTres::MinTres),
            Err(PerTres::MaxTresMins),
            Err(PerTres::MaxTresRunMinsPerAccount),
            Err(PerTres::MaxTresRunMinsPerUser),
            Ok(Count::MaxWall),
            Ok(Count::Priority),
            Ok(Count::MaxJobs),
            Ok(Count::MaxJobsAccrue),
            Ok(Count::MaxSubmitJobs),
        ];
        for which in ORDER {
            match which {
                Ok(count) => {
                    let Some(number) = request.counts.get(&count) else { continue };
                    let value = match *number {
                        CLEAR => "NONE".to_owned(),
                        number if matches!(count, Count::GrpWall | Count::MaxWall) => {
                            times::write_minutes(u64::from(number))
                        }
                        number => number.to_string(),
                    };
                    // The label of this one limit is shorter in sacctmgr's own source.
                    if count == Count::MaxJobsPerUser {
                        lines.push(format!("  MaxJobsPerUser = {value}\n"));
                    } else {
                        lines.push(format!("  {:<25}= {value}\n", count.name()));
                    }
                }
                Err(tres) => {
                    let Some(amounts) = request.tres.get(&tres) else { continue };
                    let label = match tres {
                        PerTres::MaxTres => "MaxTRESPerJob",
                        PerTres::MinTres => "MinTRESPerJob",
                        PerTres::MaxTresRunMinsPerAccount => "MaxTRESRUNMinsPerAccount",
                        PerTres::MaxTresRunMinsPerUser => "MaxTRESRUNMinsPerUser",
                        other => other.name(),
                    };
                    lines.push(format!("  {label:<25}= {}\n", self.world.tres.write(amounts, Units::Exact)));
                }
            }
        }
        if let Some(factor) = request.usage_factor {
            lines.push(format!("  {:<25}= {factor:.4}\n", "UsageFactor"));
        }
        for line in lines {
            self.out.print(&line);
        }
    }

    /// `show qos`
    pub(super) fn list_qos(&mut self, words: &[String]) -> bool {
        let mut format = Vec::new();
        let condition = self.qos_condition(&Parts::conditions(words), Some(&mut format));
        if self.failed {
            return false;
        }
        let usual = "Name,Prio,GraceT,Preempt,PreemptE,PreemptM,Flags%40,UsageThres,UsageFactor,GrpTRES,GrpTRESMins,\
                     GrpTRESRunMins,GrpJ,GrpS,GrpW,MaxTRES,MaxTRESPerN,MaxTRESMins,MaxW,MaxTRESPerUser,\
                     MaxJobsPerUser,MaxSubmitJobsPerUser,MaxTRESPerAcct,MaxJobsPerAcct,MaxSubmitJobsPerAcct,MinTRES";
        let format = Session::format_or(format, &[usual]);
        let Some(columns) = self.columns(&format, false) else { return false };
        let table = self.table(&columns);
        let mut shown: Vec<&Qos> = self.world.qos.iter().filter(|qos| condition.is(qos)).collect();
        if !condition.names.is_empty() {
            // MariaDB then answers from the index over names.
            shown.sort_by(|a, b| a.name.cmp(&b.name));
        }
        for qos in shown {
            let row: Vec<Cell> = columns.iter().map(|(_, shows)| self.qos_cell(qos, *shows)).collect();
            table.row(&row, &mut self.out);
        }
        true
    }

    fn qos_cell(&self, qos: &Qos, shows: Shows) -> Cell {
        let limits = &qos.limits;
        match shows {
            Shows::Name => text(&qos.name),
            Shows::Id => Cell::Number(qos.id.to_string()),
            Shows::Description => text(&qos.description),
            Shows::Flags if qos.flags.is_empty() => Cell::Blank,
            Shows::Flags => text(&qos.flags.join(",")),
            Shows::UsageFactor => Cell::Float(qos.usage_factor),
            Shows::Count(Count::Priority) => {
                Cell::Number(limits.count(Count::Priority).unwrap_or(0).to_string())
            }
            Shows::GraceTime => {
                let seconds = limits.count(Count::GraceTime).unwrap_or(0);
                Cell::Number(times::write_seconds(u64::from(seconds)))
            }
            Shows::PreemptMode => text("cluster"),
            Shows::Preempt => text(""),
            Shows::Count(which) | Shows::CountOrPerUser(_, which) => Cell::number(limits.count(which)),
            Shows::Minutes(which) => minutes(limits.count(which)),
            Shows::TresLimit(which) => amounts(&self.world.tres, limits.amounts(which)),
            Shows::CpuOf(which) => one_of(limits.amounts(which), CPU),
            Shows::MemOf(which) => one_of(limits.amounts(which), MEM),
            Shows::NodeOf(which) => one_of(limits.amounts(which), NODE),
            _ => Cell::Blank,
        }
    }

    /// `modify qos`
    pub(super) fn modify_qos(&mut self, words: &[String]) -> bool {
        let parts = Parts::of(words);
        let condition = self.qos_condition(&parts.conditions, None);
        let request = self.qos_request(&parts.settings);
        if self.failed {
            return false;
        }
        if !request.given {
            self.fail(" You didn't give me anything to set\n");
            return false;
        }
        if !condition.given && !self.agreed(super::account::NO_CONDITIONS) {
            return true;
        }
        if let Some(usage) = request.raw_usage {
            return self.reset_qos_usage(&condition, usage);
        }
        if !self.may(AdminLevel::Administrator) {
            return self.denied();
        }
        let names: Vec<String> =
            self.world.qos.iter().filter(|qos| condition.is(qos)).map(|qos| qos.name.clone()).collect();
        if names.is_empty() {
            self.out.print(" Nothing modified\n");
            return false;
        }
        self.out.print(" Modified qos...\n");
        for name in &names {
            self.out.print(&format!("  {name}\n"));
        }
        if self.committed() {
            for qos in self.world.qos.iter_mut().filter(|qos| names.contains(&qos.name)) {
                request.apply(qos);
            }
        }
        true
    }

    fn reset_qos_usage(&mut self, condition: &QosCondition, usage: u32) -> bool {
        if usage != 0 {
            self.error("Raw usage can only be set to 0 (zero)");
            return false;
        }
        let cluster = self.world.cluster.clone();
        self.out.print(&format!("No cluster specified, resetting on local cluster {cluster}\n"));
        for name in &condition.names {
            if self.world.qos_named(name).is_none() {
                self.error(&format!("Failed to find QOS {name}"));
                return false;
            }
        }
        if !self.may(AdminLevel::Administrator) {
            return false;
        }
        let now = self.call.now;
        for qos in self.world.qos.iter_mut().filter(|qos| condition.is(qos)) {
            qos.usage_reset_at = now;
        }
        true
    }

    /// `delete qos`
    pub(super) fn delete_qos(&mut self, words: &[String]) -> bool {
        let condition = self.qos_condition(&Parts::conditions(words), None);
        if !condition.given {
            self.fail(" No conditions given to remove, not executing.\n");
            return false;
        }
        if !self.may(AdminLevel::Administrator) {
            return self.denied();
        }
        let names: Vec<String> =
            self.world.qos.iter().filter(|qos| condition.is(qos)).map(|qos| qos.name.clone()).collect();
        if names.is_empty() {
            self.out.print(" Nothing deleted\n");
            return false;
        }
        self.out.print(" Deleting QOS(s)...\n");
        for name in &names {
            self.out.print(&format!("  {name}\n"));
        }
        if self.committed() {
            self.world.qos.retain(|qos| !names.contains(&qos.name));
            for association in &mut self.world.associations {
                association.qos.retain(|name| !names.contains(name));
                association.delta_qos.retain(|(_, name)| !names.contains(name));
            }
        }
        true
    }
}
