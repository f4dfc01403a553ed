//! `[components]`: what the portal sells, tied to what Slurm counts.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Item, Section};
use super::print::Printer;
use crate::core::component::{Component, ComponentName, Components, Unit};
use crate::core::name::NAME_BYTES_MAX;
use crate::core::tres::Tres;

/// What most portals sell: CPU-hours, GB-hours of memory, GPU-hours.
pub const COMPONENTS: [(&str, &str, Unit); 3] =
    [("cpu", "cpu", Unit::H), ("ram", "mem", Unit::GbH), ("gpu", "gres/gpu", Unit::H)];

/// The components of a configuration without the section.
pub fn default_components() -> Components {
    let component = |(name, tres, unit): (&str, &str, Unit)| {
        let tres = Tres::parse(tres).expect("the defaults are names of TRES");
        (name.to_owned(), Component { tres, unit })
    };
    Components(COMPONENTS.into_iter().map(component).collect())
}

pub(super) fn read(root: &mut Section<'_>) -> Option<Components> {
    let components = root.or("components", default_components(), |item| {
        let (mut names, mut counted) = (BTreeSet::new(), BTreeSet::new());
        let components = item.entries(|name, entry| read_component(name, entry, &mut names, &mut counted))?;
        if components.is_empty() {
            return item.wrong("no component is left", "leave the section out for cpu, ram and gpu");
        }
        Some(Components(components.into_iter().collect()))
    })?;
    Some(components)
}

fn read_component(
    name: &str,
    item: &Item<'_>,
    names: &mut BTreeSet<ComponentName>,
    counted: &mut BTreeSet<Tres>,
) -> Option<(ComponentName, Component)> {
    let folded = name.to_ascii_lowercase();
    let name_ok =
        if folded.is_empty() || folded.len() > NAME_BYTES_MAX || folded.chars().any(char::is_control) {
            item.wrong("this cannot be the name of a component", "the component's type at the portal")
        } else if names.insert(folded.clone()) {
            Some(())
        } else {
            item.wrong("this component is there twice; letter case does not count", "one entry for each")
        };
    let component = item.section(|section| {
        let tres = section.required("tres", |item| new_tres(item, counted));
        let unit = section.required("unit", |item| item.one_of(&Unit::ALL.map(|unit| (unit.as_str(), unit))));
        let (tres, unit) = (tres?, unit?);
        if tres.is_mem() != unit.is_mem() {
            return section.wrong(
                format!("{tres} cannot be counted in {unit}"),
                "GB-h, MB-h or TB-h for mem; h, kh or min for everything else",
            );
        }
        Some(Component { tres, unit })
    });
    name_ok?;
    Some((folded, component?))
}

fn new_tres(item: &Item<'_>, counted: &mut BTreeSet<Tres>) -> Option<Tres> {
    const ALLOWED: &str =
        "a TRES that `sacctmgr show tres` shows and no other component has, such as \"gres/gpu\"";
    let tres = item.parsed(ALLOWED, Tres::parse)?;
    if !counted.insert(tres.clone()) {
        return item.wrong("another component counts this TRES: both would set the same limit", ALLOWED);
    }
    Some(tres)
}

pub(super) fn print(components: &Components, to: &mut Printer) {
    to.table("components");
    for (name, component) in &components.0 {
        let value = BTreeMap::from([
            ("tres".to_owned(), toml::Value::from(component.tres.as_str())),
            ("unit".to_owned(), toml::Value::from(component.unit.as_str())),
        ]);
        to.key(name, toml::Value::Table(value.into_iter().collect()));
    }
}
