//! The routes that only look: the store as a whole, what happened, who serves, what was used.

use http::Method;
use serde_json::json;

use super::{EVERYBODY, METER, OPERATOR, OPERATOR_AND_ROOT};
use crate::control::accounts::Items;
use crate::control::billing::{abandonments, adjustments, changes, reconciliation, windows};
use crate::control::error::Kind;
use crate::control::openapi::{Api, Route};
use crate::control::{accounts, audit, export, operator_keys, upkeep, usage};

pub(super) fn store_routes(api: Api) -> Api {
    api.with(
        Route::new(
            Method::GET,
            "/v1/audit/verify",
            upkeep::verify_audit,
            ("verifyAudit", "Reads the whole audit log and names the first entry that is not what it was."),
            OPERATOR,
        )
        .answers::<upkeep::AuditAnswer>(200, "What came of it."),
    )
    .with(
        Route::new(
            Method::GET,
            "/v1/store",
            upkeep::status,
            ("readStore", "The store, its secrets and its journal."),
            OPERATOR,
        )
        .answers_as(200, "How they stand.", "application/json", json!({"type": "object"}))
        .refuses(&[Kind::NotFound]),
    )
    .with(
        Route::new(
            Method::GET,
            "/v1/store/backup",
            upkeep::backup,
            ("backUpStore", "Everything as it is at one instant, with a checksum at its end."),
            OPERATOR,
        )
        .answers_as(200, "The backup.", "application/octet-stream", json!({"type": "string", "format": "binary"}))
        .refuses(&[Kind::NotFound]),
    )
}

/// What happened, and who serves.
pub(super) fn happening_routes(api: Api) -> Api {
    api.with(
        Route::new(
            Method::GET,
            "/v1/audit",
            audit::list,
            ("listAudit", "The audit log, newest first: the operator all of it, a root user the own part."),
            OPERATOR_AND_ROOT,
        )
        .query("account", "Only of this account.", &json!({"$ref": "#/components/schemas/AccountId"}))
        .query("cursor", "Continues behind the entry with this number.", &json!({"type": "integer"}))
        .query("limit", "Items on a page; 100 by default, 1000 at most.", &json!({"type": "integer"}))
        .answers::<accounts::Items<audit::EntryView, String>>(200, "A page."),
    )
    .with(
        Route::new(
            Method::GET,
            "/v1/gateways",
            operator_keys::gateways,
            ("listGateways", "The gateways and how far each has come."),
            OPERATOR,
        )
        .answers_list::<operator_keys::Gateway>("All of them."),
    )
}

pub(super) fn usage_routes(api: Api) -> Api {
    let text = json!({"type": "string"});
    let instant = json!({"type": "string", "format": "date-time"});
    let formats = json!({"type": "string", "enum": ["ndjson", "csv", "cloudevents"]});
    let shard = json!({"type": "string", "pattern": "^[0-9]+/[0-9]+$", "examples": ["0/4"]});
    api.with(
        Route::new(
            Method::GET,
            "/v1/usage/records",
            usage::records,
            ("listUsage", "What was used, by hour: one record per line."),
            EVERYBODY,
        )
        .query("account", "Only of this account.", &json!({"$ref": "#/components/schemas/AccountId"}))
        .query("cluster", "Only of this cluster.", &json!({"$ref": "#/components/schemas/ClusterId"}))
        .query("key", "Only calls with this key.", &json!({"$ref": "#/components/schemas/KeyId"}))
        .query("operation", "Only this operation.", &text)
        .query("from", "The first window.", &instant)
        .query("to", "The end of the last window.", &instant)
        .query("final", "Only windows that are final, or are not.", &json!({"type": "boolean"}))
        .query("limit", "Records in one answer; 10 000 by default.", &json!({"type": "integer", "minimum": 0}))
        .query("cursor", "From X-Next-Cursor of the answer before.", &text)
        .query("by", "Split by key.", &json!({"type": "string", "enum": ["key"]}))
        .query("format", "How the records are written; without it the Accept header decides.", &formats)
        .answers_as(200, "Records.", "application/x-ndjson", json!({"type": "object"}))
        .answers_as(200, "Records.", "text/csv", text.clone())
        .answers_as(200, "Records.", "application/cloudevents-batch+json", cloud_events()),
    )
    .with(
        Route::new(
            Method::GET,
            "/metrics/usage",
            export::totals,
            ("exportUsage", "Cumulative counters per account, for Prometheus."),
            METER,
        )
        .query(
            "shard",
            "Only the accounts of the part i/n, counted from 0; all parts together have every account once.",
            &shard,
        )
        .answers_as(200, "Counters.", "text/plain", text.clone())
        .answers_as(200, "Counters.", "application/openmetrics-text", text)
        .answers_as(
            200,
            "Counters.",
            "application/vnd.google.protobuf",
            json!({"type": "string", "format": "binary"}),
        ),
    )
}

/// What stands around the records.
pub(super) fn billing_routes(api: Api) -> Api {
    let instant = json!({"type": "string", "format": "date-time"});
    let number = json!({"type": "integer", "minimum": 0});
    api.with(
        Route::new(
            Method::GET,
            "/v1/usage/windows",
            windows::list,
            ("listWindows", "The hours: open, draining with the gateways that are missing, or final."),
            EVERYBODY,
        )
        .query("from", "The first window; by default a week back.", &instant)
        .query("to", "The end of the last window; by default now.", &instant)
        .answers::<Items<windows::Window, String>>(200, "Oldest first; hours in which no gateway ran are left out."),
    )
    .with(
        Route::new(
            Method::GET,
            "/v1/usage/changes",
            changes::list,
            ("listUsageChanges", "Every record that changed, as it is now: at least once, oldest change first."),
            EVERYBODY,
        )
        .query("after", "The greatest seq that was taken in; absent to begin.", &number)
        .query(
            "wait",
            "How long to wait where nothing changed, such as 30s; a minute at most.",
            &json!({"type": "string"}),
        )
        .query("limit", "About how many changes; 1000 by default.", &number)
        .answers_as(200, "Lines of {seq, record}.", "application/x-ndjson", json!({"type": "object"})),
    )
    .with(
        Route::new(
            Method::GET,
            "/v1/usage/reconciliation",
            reconciliation::read,
            ("readReconciliation", "What gateways say they counted in an hour, against what the ledger holds."),
            EVERYBODY,
        )
        .query("window", "Any instant within the hour; by default the last one that is over.", &instant)
        .answers::<reconciliation::Reconciliation>(200, "The comparison."),
    )
}

/// What an operator says beside what was counted.
pub(super) fn correction_routes(api: Api) -> Api {
    let adjustment = json!({
        "account_id": "acc_aaaaaaaaaaaaaaaa", "cluster_id": "clu_aaaaaaaaaaaaaaaa", "operation": "query",
        "window_start": "2026-03-20T09:00:00Z", "field": "read_units", "delta": 100, "reason": "taken from the log of the service",
        "idempotency_key": "late-2026-03-20-1",
    });
    api.with(
        Route::new(
            Method::POST,
            "/v1/usage/adjustments",
            adjustments::create,
            ("adjustUsage", "Appends a correction of what is billed. What was counted stays as it is."),
            OPERATOR,
        )
        .takes::<adjustments::Adjust>(&adjustment)
        .answers::<adjustments::Adjusted>(201, "The correction as it was made, now or when it was first asked for.")
        .refuses(&[Kind::NotFound, Kind::IdempotencyKeyTaken]),
    )
    .with(
        Route::new(
            Method::POST,
            "/v1/usage/abandonments",
            abandonments::create,
            ("abandonGateway", "Gives a gateway up whose machine is gone: hours no longer wait for its usage."),
            OPERATOR,
        )
        .takes::<abandonments::Abandon>(
            &json!({"incarnation": "gw_aaaaaaaaaaaaaaaa", "reason": "the machine burnt down"}),
        )
        .answers::<abandonments::Abandoned>(201, "It is named as lost in its hours from now on.")
        .refuses(&[Kind::NotFound]),
    )
}

/// A batch of them (CloudEvents 1.0, JSON format).
fn cloud_events() -> serde_json::Value {
    let text = json!({"type": "string"});
    let event = json!({
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text,
            "source": {"type": "string", "format": "uri-reference"},
            "type": {"const": "tollgate.usage.record.v1"},
            "subject": {"$ref": "#/components/schemas/AccountId"},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "data": {"type": "object"},
        },
    });
    json!({"type": "array", "items": event})
}
