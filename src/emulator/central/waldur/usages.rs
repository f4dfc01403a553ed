//! Component usages: what resources and their users used in a billing month. Every amount is absolute; a new
//! one for the same resource, component and month replaces the old.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::amount::Amount;
use super::super::clock::day_of;
use super::super::http::{Answer, Request};
use super::super::state::{BillingType, CentralState, ComponentUsage, Role, User, UserUsage};
use super::super::tracked::Tracked;
use super::fields::Fields;
use super::{evaluate, forbidden, missing, owns, page, quotas, wire};

/// What Django REST framework says about a time it cannot read.
const BAD_TIME: &str = "Datetime has wrong format. Use one of these formats instead: \
                        YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z].";

/// Longest user name.
const USERNAME_MAX: usize = 100;

fn is_visible(state: &CentralState, user: &User, usage: &ComponentUsage) -> bool {
    let resource = state.resource(usage.resource);
    resource.is_some_and(|resource| owns(user, state.offering(resource.offering)))
}

/// The filters of usage lists.
struct Filter {
    resource: Option<Uuid>,
    offering: Option<Uuid>,
    after: Option<Date>,
    before: Option<Date>,
    billing_period: Option<Date>,
    year: Option<f64>,
    month: Option<f64>,
    kind: Option<String>,
}

impl Filter {
    fn read(request: &Request) -> Result<Self, Answer> {
        let bad = |name: &str, message: &str| Answer::json(400, &json!({name: [message]}));
        let uuid = |name: &str| match request.param(name) {
            None => Ok(None),
            Some(text) => Uuid::try_parse(text).map(Some).map_err(|_| bad(name, "Enter a valid UUID.")),
        };
        let date = |name: &str| match request.param(name) {
            None => Ok(None),
            Some(text) => text.parse::<Date>().map(Some).map_err(|_| bad(name, "Enter a valid date.")),
        };
        let number = |name: &str| match request.param(name) {
            None => Ok(None),
            Some(text) => text.parse::<f64>().map(Some).map_err(|_| bad(name, "Enter a number.")),
        };
        Ok(Self {
            resource: uuid("resource_uuid")?,
            offering: uuid("offering_uuid")?,
            after: date("date_after")?,
            before: date("date_before")?,
            billing_period: date("billing_period")?,
            year: number("billing_period_year")?,
            month: number("billing_period_month")?,
            kind: request.param("type").map(str::to_owned),
        })
    }

    fn passes(&self, state: &CentralState, usage: &ComponentUsage) -> bool {
        let day = usage.date.map(day_of);
        let month = usage.billing_period;
        let offering = state.resource(usage.resource).map(|resource| resource.offering);
        self.resource.is_none_or(|uuid| usage.resource == uuid)
            && self.offering.is_none_or(|uuid| offering == Some(uuid))
            && self.after.is_none_or(|after| day.is_some_and(|day| day >= after))
            && self.before.is_none_or(|before| day.is_some_and(|day| day <= before))
            && self.billing_period.is_none_or(|wanted| month == Some(wanted))
            && self.year.is_none_or(|year| month.is_some_and(|month| f64::from(month.year()) == year))
            && self.month.is_none_or(|wanted| month.is_some_and(|month| f64::from(month.month()) == wanted))
            && self.kind.as_ref().is_none_or(|kind| usage.kind == *kind)
    }
}

/// The usages that pass the filters, newest month first.
pub(super) fn list(state: &CentralState, user: &User, request: &Request) -> Result<Answer, Answer> {
    let filter = Filter::read(request)?;
    let mut usages: Vec<&ComponentUsage> = state
        .component_usages
        .iter()
        .filter(|usage| is_visible(state, user, usage) && filter.passes(state, usage))
        .collect();
    usages.sort_by_key(|usage| std::cmp::Reverse(usage.billing_period));
    page::paged(request, &usages, |usage| wire::component_usage(state, usage))
}

/// One usage.
pub(super) fn retrieve(
    state: &CentralState,
    user: &User,
    request: &Request,
    uuid: Uuid,
) -> Result<Answer, Answer> {
    let usage = state.component_usages.iter().find(|usage| usage.uuid == uuid);
    let usage =
        usage.filter(|usage| is_visible(state, user, usage)).ok_or_else(|| missing("ComponentUsage"))?;
    let row = wire::component_usage(state, usage);
    Ok(Answer::json(200, &page::sparse(row, page::sparse_fields(request).as_ref())))
}

/// The usages of users that pass the filters.
pub(super) fn list_users(state: &CentralState, user: &User, request: &Request) -> Result<Answer, Answer> {
    let filter = Filter::read(request)?;
    let base = request.base();
    let rows: Vec<_> = state
        .user_usages
        .iter()
        .filter(|row| request.param("username").is_none_or(|name| row.username == name))
        .filter(|row| {
            let parent = state.component_usages.iter().find(|usage| usage.uuid == row.component_usage);
            parent.is_some_and(|parent| is_visible(state, user, parent) && filter.passes(state, parent))
        })
        .collect();
    page::paged(request, &rows, |row| wire::user_usage(state, row, &base))
}

/// One item of a report.
struct Item {
    kind: String,
    amount: Amount,
    description: String,
    recurring: bool,
}

/// Reports usage of a resource; amounts replace those of the same month.
pub(super) fn set_usage(state: &mut Tracked<'_>, user: &User, request: &Request) -> Result<Answer, Answer> {
    let mut fields = Fields::new(request.json_object()?);
    fields.require("usages");
    let resource = fields.uuid("resource", false).or_else(|| fields.uuid("plan_period", false));
    let date = time_field(&mut fields, "date");
    let items = items(&mut fields);
    fields.check()?;
    let Some(resource) = resource else {
        return Err(non_field("Either plan_period or resource must be provided."));
    };
    let found = state.resource(resource).cloned();
    let Some(resource) = found else {
        return Err(Answer::json(
            400,
            &json!({"resource": [format!("Object with uuid={resource} does not exist.")]}),
        ));
    };
    if !owns(user, state.offering(resource.offering)) {
        return Err(forbidden());
    }
    if !matches!(resource.state.as_str(), "OK" | "Updating" | "Terminating") {
        return Err(Answer::json(400, &json!({"resource": ["Resource is not in valid state."]})));
    }
    check_components(state, user, resource.offering, &items, date)?;
    let now = state.now();
    let date = date.unwrap_or(now);
    for item in items {
        put(state.edit(), user, resource.uuid, date, item);
    }
    quotas::follow_usages(state.edit());
    if state.settings.evaluate_on_usage
        && let Some(policy) = state.policy_of_offering(resource.offering).map(|policy| policy.uuid)
    {
        evaluate::evaluate(state.edit(), policy, resource.uuid);
    }
    Ok(Answer::empty(201))
}

fn non_field(message: &str) -> Answer {
    Answer::json(400, &json!({"non_field_errors": [message]}))
}

fn check_components(
    state: &CentralState,
    user: &User,
    offering: Uuid,
    items: &[Item],
    date: Option<Timestamp>,
) -> Result<(), Answer> {
    let components =
        state.offering(offering).map(|offering| offering.components.as_slice()).unwrap_or_default();
    let find = |kind: &str| components.iter().find(|component| component.kind == kind);
    let mut unknown: Vec<&str> = items
        .iter()
        .filter(|item| find(&item.kind).is_none_or(|component| component.billing_type == BillingType::Fixed))
        .map(|item| item.kind.as_str())
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    if !unknown.is_empty() {
        return Err(non_field(&format!("These components are invalid: {}.", unknown.join(", "))));
    }
    let past = date.is_some_and(|date| day_of(date).first_of_month() != day_of(state.now()).first_of_month());
    let limit_based =
        |item: &Item| find(&item.kind).is_some_and(|component| component.billing_type == BillingType::Limit);
    if past && user.role != Role::Staff && !items.iter().all(limit_based) {
        return Err(Answer::json(
            400,
            &json!({"date": ["Only staff can report usage of usage-based components for another month."]}),
        ));
    }
    Ok(())
}

fn time_field(fields: &mut Fields, name: &str) -> Option<Timestamp> {
    let text = match fields.raw(name)? {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        _ => {
            fields.reject(name, BAD_TIME);
            return None;
        }
    };
    let parsed = parse_time(&text);
    if parsed.is_none() {
        fields.reject(name, BAD_TIME);
    }
    parsed
}

/// A time with an offset, or a bare one taken as UTC.
fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant);
    }
    let bare: DateTime = text.parse().ok()?;
    bare.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn items(fields: &mut Fields) -> Vec<Item> {
    let Some(Value::Array(raw)) = fields.raw("usages").cloned() else {
        if fields.raw("usages").is_some() {
            fields.reject_with("usages", json!({"non_field_errors": ["Expected a list of items."]}));
        }
        return Vec::new();
    };
    let mut items = Vec::new();
    let mut complaints = Vec::new();
    for one in &raw {
        let mut nested = Fields::new(one.as_object().cloned().unwrap_or_default());
        nested.require("type");
        nested.require("amount");
        let kind = nested.text("type", false);
        let amount = amount_field(&mut nested, "amount");
        let description = nested.text("description", true).unwrap_or_default();
        let policy = nested.choice("missing_usage_policy", &["none", "reuse", "zero"]);
        let recurring =
            nested.raw("recurring").and_then(Value::as_bool).unwrap_or(policy.as_deref() == Some("reuse"));
        match nested.check() {
            Ok(()) => complaints.push(json!({})),
            Err(refusal) => complaints.push(serde_json::from_slice(&refusal.body).unwrap_or_default()),
        }
        if let (Some(kind), Some(amount)) = (kind, amount) {
            items.push(Item { kind, amount, description, recurring });
        }
    }
    if complaints.iter().any(|complaint: &Value| complaint != &json!({})) {
        fields.reject_with("usages", Value::Array(complaints));
    }
    items
}

fn amount_field(fields: &mut Fields, name: &str) -> Option<Amount> {
    let text = fields.text(name, false)?;
    match Amount::parse(&text) {
        Ok(amount) if amount >= Amount::default() => Some(amount),
        Ok(_) => {
            fields.reject(name, "Ensure this value is greater than or equal to 0.");
            None
        }
        Err(message) => {
            fields.reject(name, message);
            None
        }
    }
}

fn put(state: &mut CentralState, user: &User, resource: Uuid, date: Timestamp, item: Item) {
    let now = state.now();
    let month = day_of(date).first_of_month();
    let modified_by = state.users.iter().position(|known| known.username == user.username);
    let modified_by = modified_by.and_then(|index| u32::try_from(index + 1).ok());
    if month == day_of(now).first_of_month()
        && let Some(slot) = state.resources.iter_mut().find(|slot| slot.uuid == resource)
    {
        slot.current_usages.insert(item.kind.clone(), item.amount);
        slot.last_sync = Some(now);
    }
    let present = state
        .component_usages
        .iter_mut()
        .find(|row| row.resource == resource && row.kind == item.kind && row.billing_period == Some(month));
    if let Some(row) = present {
        row.usage = item.amount;
        row.description = item.description;
        row.recurring = item.recurring;
        row.date = Some(date);
        row.modified_by = modified_by;
        return;
    }
    let uuid = state.next_uuid();
    state.component_usages.push(ComponentUsage {
        uuid,
        resource,
        kind: item.kind,
        usage: item.amount,
        description: item.description,
        billing_period: Some(month),
        date: Some(date),
        created: Some(now),
        recurring: item.recurring,
        modified_by,
    });
}

/// One user's part of a report.
struct UserItem {
    username: String,
    usage: Amount,
    user: Option<String>,
    date: Option<Timestamp>,
}

/// Reports usage of users within a component usage.
pub(super) fn set_user_usages(
    state: &mut Tracked<'_>,
    user: &User,
    request: &Request,
    uuid: Uuid,
    bulk: bool,
) -> Result<Answer, Answer> {
    let usage = state.component_usages.iter().find(|usage| usage.uuid == uuid);
    let usage =
        usage.filter(|usage| is_visible(state, user, usage)).ok_or_else(|| missing("ComponentUsage"))?;
    let parent = usage.uuid;
    let body = request.json_object()?;
    let items = if bulk { bulk_items(body)? } else { vec![user_item(&mut Fields::new(body))?] };
    for item in items {
        put_user(state.edit(), parent, item);
    }
    Ok(Answer::empty(201))
}

fn bulk_items(body: serde_json::Map<String, Value>) -> Result<Vec<UserItem>, Answer> {
    let mut fields = Fields::new(body);
    fields.require("usages");
    fields.check()?;
    let Some(Value::Array(raw)) = fields.raw("usages") else {
        return Err(Answer::json(
            400,
            &json!({"usages": {"non_field_errors": ["Expected a list of items."]}}),
        ));
    };
    let mut items = Vec::new();
    let mut complaints = Vec::new();
    for one in raw {
        match user_item(&mut Fields::new(one.as_object().cloned().unwrap_or_default())) {
            Ok(item) => {
                items.push(item);
                complaints.push(json!({}));
            }
            Err(refusal) => complaints.push(serde_json::from_slice(&refusal.body).unwrap_or_default()),
        }
    }
    if items.len() == raw.len() { Ok(items) } else { Err(Answer::json(400, &json!({"usages": complaints}))) }
}

fn user_item(fields: &mut Fields) -> Result<UserItem, Answer> {
    fields.require("username");
    let username = fields.text("username", false).unwrap_or_default();
    if username.chars().count() > USERNAME_MAX {
        fields.reject("username", format!("Ensure this field has no more than {USERNAME_MAX} characters."));
    }
    let usage = match fields.raw("usage") {
        None => Some(Amount::default()),
        Some(_) => amount_field(fields, "usage"),
    };
    let user = match fields.raw("user") {
        None | Some(Value::Null) => None,
        Some(_) => fields.text("user", false),
    };
    let date = time_field(fields, "date");
    fields.check()?;
    Ok(UserItem { username, usage: usage.unwrap_or_default(), user, date })
}

fn put_user(state: &mut CentralState, component_usage: Uuid, item: UserItem) {
    let now = state.now();
    let date = item.date.unwrap_or(now);
    let present = state
        .user_usages
        .iter_mut()
        .find(|row| row.component_usage == component_usage && row.username == item.username);
    if let Some(row) = present {
        row.usage = item.usage;
        row.date = Some(date);
        row.modified = Some(now);
        row.user = item.user.or(row.user.take());
        return;
    }
    let uuid = state.next_uuid();
    state.user_usages.push(UserUsage {
        uuid,
        component_usage,
        username: item.username,
        user: item.user,
        usage: item.usage,
        date: Some(date),
        created: Some(now),
        modified: Some(now),
    });
}
