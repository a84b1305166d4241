//! Routes that describe themselves: each is added once, to the router and to the OpenAPI document, so that the two agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Control;
use super::confirm::Outstanding;
use super::cookie::{CSRF_TOKEN, SESSION_COOKIE};
use super::error::{Kind, ProblemBody};
use super::step_up::STEP_UP_GRANT;

/// Who may use a route. Nobody named: everybody, without a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Operator,
    Root,
    Member,
    Billing,
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Root => "root",
            Self::Member => "member",
            Self::Billing => "billing",
        }
    }
}

/// One method of one path: who may use it, what it takes and answers.
pub struct Route {
    method: Method,
    path: &'static str,
    handler: MethodRouter<Arc<Control>>,
    id: &'static str,
    says: &'static str,
    who: &'static [Who],
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
    refusals: Vec<Kind>,
    schemas: Schemas,
}

type Schemas = Vec<(String, RefOr<Schema>)>;

impl Route {
    /// `id` names the operation for programs, `says` is a sentence for people.
    pub fn new<H, T>(
        method: Method,
        path: &'static str,
        handler: H,
        (id, says): (&'static str, &'static str),
        who: &'static [Who],
    ) -> Self
    where
        H: Handler<T, Arc<Control>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        let parameters = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters: Vec<_> = parameters.map(|name| path_parameter(path, name)).collect();
        let mut refusals = vec![Kind::Internal, Kind::StoreAway, Kind::StoreFrozen, Kind::Overloaded];
        if !who.is_empty() {
            refusals.extend([Kind::Unauthenticated, Kind::Forbidden]);
        }
        if who.contains(&Who::Root) {
            refusals.extend([Kind::RootOnly, Kind::CrossSite]);
        }
        if !parameters.is_empty() {
            refusals.push(Kind::NotFound);
        }
        Self {
            handler: on(filter, handler),
            answers: Map::new(),
            body: None,
            schemas: Vec::new(),
            method,
            path,
            id,
            says,
            who,
            parameters,
            refusals,
        }
    }

    /// A JSON body, with an example that is good as it stands.
    pub fn takes<T: ToSchema>(mut self, example: &Value) -> Self {
        let content = json!({"application/json": {"schema": self.reference::<T>(), "example": example}});
        self.body = Some(json!({"required": example != &json!({}), "content": content}));
        self.refuses(&[Kind::Invalid, Kind::NotJson, Kind::BodyTooLarge, Kind::BodyTimeout])
    }

    pub fn query(mut self, name: &str, says: &str, schema: &Value) -> Self {
        let parameter = json!({"in": "query", "name": name, "description": says, "required": false, "schema": schema});
        self.parameters.push(parameter);
        if self.refusals.contains(&Kind::Invalid) { self } else { self.refuses(&[Kind::Invalid]) }
    }

    /// The grant of a step-up. A repeated delete needs none, and neither does a member for the own password.
    pub fn grant(mut self, required: bool) -> Self {
        let says = "The grant of a step-up for this action. Used up by it.";
        let schema = json!({"type": "string"});
        let grant =
            json!({"in": "header", "name": STEP_UP_GRANT, "description": says, "required": required, "schema": schema});
        self.parameters.push(grant);
        self.refuses(&[Kind::StepUpRequired, Kind::GrantInvalid])
    }

    pub fn answers<T: ToSchema>(mut self, status: u16, says: &str) -> Self {
        let schema = self.reference::<T>();
        self.answer(status, says, Some(("application/json", schema)))
    }

    pub fn answers_list<T: ToSchema>(mut self, says: &str) -> Self {
        let items = self.reference::<T>();
        self.answer(200, says, Some(("application/json", json!({"type": "array", "items": items}))))
    }

    pub fn answers_as(self, status: u16, says: &str, media: &'static str, schema: Value) -> Self {
        self.answer(status, says, Some((media, schema)))
    }

    pub fn answers_nothing(self, says: &str) -> Self {
        self.answer(204, says, None)
    }

    /// The change waits for the gateways: 202 where some have not confirmed it in time.
    pub fn waits<T: ToSchema>(mut self) -> Self {
        let late = json!({"allOf": [self.reference::<T>(), self.reference::<Outstanding>()]});
        let says = "Done, and not confirmed by every gateway yet.";
        self.answer(202, says, Some(("application/json", late))).wait_query()
    }

    pub fn wait_query(self) -> Self {
        let schema = json!({"type": "string", "examples": ["2s", "250ms"]});
        self.query("wait", "How long the answer may wait for the gateways; 10 s at most.", &schema)
    }

    /// Answers of its own beside those that every such route has.
    pub fn refuses(mut self, kinds: &[Kind]) -> Self {
        self.refusals.extend(kinds);
        self
    }

    fn answer(mut self, status: u16, says: &str, content: Option<(&str, Value)>) -> Self {
        // One status may come in several forms.
        let answer = self.answers.entry(status.to_string()).or_insert_with(|| json!({"description": says}));
        if let Some((media, schema)) = content {
            answer["content"][media] = json!({"schema": schema});
        }
        self
    }

    fn reference<T: ToSchema>(&mut self) -> Value {
        T::schemas(&mut self.schemas);
        self.schemas.push((T::name().into_owned(), T::schema()));
        json!({"$ref": format!("#/components/schemas/{}", T::name())})
    }

    fn operation(&self) -> Value {
        let callers: Vec<_> = self.who.iter().map(|who| who.name()).collect();
        let tag = self.path.split('/').nth(2).unwrap_or("document");
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.says,
            "tags": [tag],
            "security": security(self.who),
            "x-callers": callers,
            "responses": self.responses(),
        });
        if !self.parameters.is_empty() {
            operation["parameters"] = json!(self.parameters);
        }
        if let Some(body) = &self.body {
            operation["requestBody"] = body.clone();
        }
        operation
    }

    /// One entry for each status, with the codes that come with it.
    fn responses(&self) -> Map<String, Value> {
        let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for kind in &self.refusals {
            codes.entry(kind.status().as_u16()).or_default().push(kind.code());
        }
        let mut responses = self.answers.clone();
        for (status, codes) in codes {
            let content = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
            let says = format!("Refused: {}.", codes.join(", "));
            responses.insert(status.to_string(), json!({"description": says, "content": content, "x-codes": codes}));
        }
        responses
    }
}

fn path_parameter(path: &str, name: &str) -> Value {
    let kind = match name {
        "member" => "UserId",
        "key_id" => "KeyId",
        _ if path.starts_with("/v1/accounts/") => "AccountId",
        _ if path.starts_with("/v1/clusters/") => "ClusterId",
        _ => "KeyId",
    };
    let schema = json!({"$ref": format!("#/components/schemas/{kind}")});
    json!({"in": "path", "name": name, "required": true, "schema": schema})
}

/// What to send to be one of them.
fn security(who: &[Who]) -> Vec<Value> {
    let mut ways = Vec::new();
    if who.contains(&Who::Operator) {
        ways.push(json!({"operator": []}));
    }
    if who.contains(&Who::Root) || who.contains(&Who::Member) {
        ways.extend([json!({"session": []}), json!({"cookie": [], "csrf": []})]);
    }
    if who.contains(&Who::Billing) {
        ways.push(json!({"billing": []}));
    }
    ways
}

/// The routes of the API and their document, as they grow together.
#[derive(Default)]
pub struct Api {
    router: Router<Arc<Control>>,
    paths: BTreeMap<&'static str, Map<String, Value>>,
    schemas: BTreeMap<String, Value>,
}

impl Api {
    #[must_use]
    pub fn with(mut self, route: Route) -> Self {
        let method = route.method.as_str().to_ascii_lowercase();
        self.paths.entry(route.path).or_default().insert(method, route.operation());
        for (name, schema) in route.schemas {
            self.schemas.entry(name).or_insert_with(|| without_null(json!(schema)));
        }
        Self { router: self.router.route(route.path, route.handler), ..self }
    }

    /// The router, and the document of everything in it.
    pub fn finish(mut self) -> (Router<Arc<Control>>, Value) {
        let mut shared: Schemas = vec![("Problem".to_owned(), ProblemBody::schema())];
        super::schemas::ids(&mut shared);
        self.schemas.extend(shared.into_iter().map(|(name, schema)| (name, without_null(json!(schema)))));
        let bearer = |says: &str| json!({"type": "http", "scheme": "bearer", "description": says});
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Tollgate control API",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Accounts, clusters, API keys and usage. Errors are problem details (RFC 9457) with a stable `code`.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": self.paths,
            "components": {
                "schemas": self.schemas,
                "securitySchemes": {
                    "operator": bearer("The operator's token."),
                    "session": bearer("The token of a session, from POST /v1/session."),
                    "billing": bearer("The billing token: it reads usage and nothing else."),
                    "cookie": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
                    "csrf": {"type": "apiKey", "in": "header", "name": CSRF_TOKEN.as_str()},
                },
            },
        });
        (self.router, document)
    }
}

/// The end of a list says `"next": null`.
fn without_null_in((name, value): (String, Value)) -> (String, Value) {
    let value = if name == "next" { value } else { without_null(value) };
    (name, value)
}

/// Nothing else in this API is null that can be absent, but a derived schema takes every `Option` for both.
fn without_null(schema: Value) -> Value {
    match schema {
        Value::Array(items) => Value::Array(items.into_iter().map(without_null).collect()),
        Value::Object(mut fields) => {
            if let Some(types) = fields.get_mut("type")
                && let Some(one) = types.as_array().and_then(|types| types.iter().find(|kind| *kind != "null"))
            {
                *types = one.clone();
            }
            let choices = fields.get("oneOf").and_then(Value::as_array);
            let real: Vec<_> = choices.into_iter().flatten().filter(|one| one["type"] != "null").cloned().collect();
            match real.as_slice() {
                [only] => without_null(only.clone()),
                _ => Value::Object(fields.into_iter().map(without_null_in).collect()),
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_no_value_of_any_schema() {
        let schema = json!({"properties": {"a": {"type": ["string", "null"]}, "b": {"oneOf": [{"type": "null"}, {"$ref": "#/x"}]}}});
        let wanted = json!({"properties": {"a": {"type": "string"}, "b": {"$ref": "#/x"}}});
        assert_eq!(without_null(schema), wanted);
    }
}
