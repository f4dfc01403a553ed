//! Provider resources and offerings.

use serde_json::json;
use uuid::Uuid;

use super::super::http::{Answer, Request};
use super::super::state::{CentralState, Offering, Resource, User};
use super::super::tracked::Tracked;
use super::fields::Fields;
use super::{forbidden, missing, owns, page, policy_body, wire};

/// Actions of one resource, as they stand in its address.
pub(super) const ACTIONS: [&str; 5] =
    ["set_backend_metadata", "set_backend_id", "set_paused", "set_downscaled", "refresh_last_sync"];

const STATES: [&str; 6] = ["Creating", "OK", "Erred", "Updating", "Terminating", "Terminated"];

/// The resources of the user's offerings that pass the filters, newest first.
pub(super) fn list(state: &CentralState, user: &User, request: &Request) -> Result<Answer, Answer> {
    let filter = Filter::read(request)?;
    let base = request.base();
    let mut resources: Vec<&Resource> = state
        .resources
        .iter()
        .filter(|resource| owns(user, state.offering(resource.offering)))
        .filter(|resource| filter.passes(resource))
        .collect();
    resources.sort_by_key(|resource| std::cmp::Reverse(resource.created));
    page::paged(request, &resources, |resource| wire::resource(state, resource, &base))
}

/// The text of a resource that a filter looks at.
type TextOf = fn(&Resource) -> &str;

struct Filter {
    offerings: Vec<Uuid>,
    states: Vec<String>,
    texts: Vec<(TextOf, TextMatch, String)>,
    paused: Option<bool>,
    downscaled: Option<bool>,
}

#[derive(Clone, Copy)]
enum TextMatch {
    Exact,
    Contains,
}

impl Filter {
    fn read(request: &Request) -> Result<Self, Answer> {
        let mut offerings = Vec::new();
        for text in request.params("offering_uuid") {
            match Uuid::try_parse(text) {
                Ok(uuid) => offerings.push(uuid),
                Err(_) => return Err(Answer::json(400, &json!({"offering_uuid": ["Enter a valid UUID."]}))),
            }
        }
        offerings.extend(request.params("offering").filter_map(policy_body::offering_of_url));
        let states: Vec<String> = request.params("state").map(str::to_owned).collect();
        if let Some(unknown) = states.iter().find(|state| !STATES.contains(&state.as_str())) {
            let message = format!("Select a valid choice. {unknown} is not one of the available choices.");
            return Err(Answer::json(400, &json!({"state": [message]})));
        }
        let by: [(&str, TextOf, TextMatch); 4] = [
            ("backend_id", |resource| &resource.backend_id, TextMatch::Exact),
            ("name_exact", |resource| &resource.name, TextMatch::Exact),
            ("name", |resource| &resource.name, TextMatch::Contains),
            ("query", |resource| &resource.name, TextMatch::Contains),
        ];
        let texts = by
            .into_iter()
            .filter_map(|(name, of, how)| request.param(name).map(|text| (of, how, text.to_owned())))
            .collect();
        let truth = |name: &str| request.param(name).map(|text| text.eq_ignore_ascii_case("true"));
        Ok(Self { offerings, states, texts, paused: truth("paused"), downscaled: truth("downscaled") })
    }

    fn passes(&self, resource: &Resource) -> bool {
        let texts = self.texts.iter().all(|(of, how, wanted)| match how {
            TextMatch::Exact => of(resource) == wanted,
            TextMatch::Contains => of(resource).to_lowercase().contains(&wanted.to_lowercase()),
        });
        (self.offerings.is_empty() || self.offerings.contains(&resource.offering))
            && (self.states.is_empty() || self.states.contains(&resource.state))
            && self.paused.is_none_or(|paused| resource.paused == paused)
            && self.downscaled.is_none_or(|downscaled| resource.downscaled == downscaled)
            && texts
    }
}

fn visible(state: &CentralState, user: &User, uuid: Uuid) -> Result<Resource, Answer> {
    state
        .resource(uuid)
        .filter(|resource| owns(user, state.offering(resource.offering)))
        .cloned()
        .ok_or_else(|| missing("Resource"))
}

/// One resource.
pub(super) fn retrieve(
    state: &CentralState,
    user: &User,
    request: &Request,
    uuid: Uuid,
) -> Result<Answer, Answer> {
    let resource = visible(state, user, uuid)?;
    let row = wire::resource(state, &resource, &request.base());
    Ok(Answer::json(200, &page::sparse(row, page::sparse_fields(request).as_ref())))
}

/// What the site's side may set on a resource.
pub(super) fn action(
    state: &mut Tracked<'_>,
    user: &User,
    request: &Request,
    uuid: Uuid,
    action: &str,
) -> Result<Answer, Answer> {
    let mut resource = visible(state, user, uuid)?;
    if !owns(user, state.offering(resource.offering)) {
        return Err(forbidden());
    }
    let mut fields = Fields::new(request.json_object()?);
    let status = match action {
        "set_backend_metadata" => {
            fields.require("backend_metadata");
            resource.backend_metadata = fields.object("backend_metadata").unwrap_or_default();
            "Resource backend_metadata has been changed."
        }
        "set_backend_id" => {
            if let Some(backend_id) = fields.text("backend_id", true) {
                resource.backend_id = backend_id;
            }
            "Resource backend_id has been changed."
        }
        "set_paused" => {
            resource.paused = fields.boolean("paused").unwrap_or(resource.paused);
            "Paused flag has been set."
        }
        "set_downscaled" => {
            resource.downscaled = fields.boolean("downscaled").unwrap_or(resource.downscaled);
            "Downscaled flag has been set."
        }
        _ => "ok",
    };
    fields.check()?;
    resource.last_sync = Some(state.now());
    for slot in state.edit().resources.iter_mut().filter(|slot| slot.uuid == uuid) {
        slot.clone_from(&resource);
    }
    Ok(Answer::json(200, &json!({"status": status})))
}

/// The offerings of the user.
pub(super) fn offerings(state: &CentralState, user: &User, request: &Request) -> Result<Answer, Answer> {
    let base = request.base();
    let offerings: Vec<&Offering> =
        state.offerings.iter().filter(|offering| owns(user, Some(offering))).collect();
    page::paged(request, &offerings, |offering| wire::offering(offering, &base))
}

/// One offering.
pub(super) fn offering(
    state: &CentralState,
    user: &User,
    request: &Request,
    uuid: Uuid,
) -> Result<Answer, Answer> {
    let offering = state.offering(uuid).filter(|offering| owns(user, Some(offering)));
    let offering = offering.ok_or_else(|| missing("Offering"))?;
    let row = wire::offering(offering, &request.base());
    Ok(Answer::json(200, &page::sparse(row, page::sparse_fields(request).as_ref())))
}
