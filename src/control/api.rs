//! Every route of the API (interfaces, sections 4 and 5): who may use it, what it takes, answers and refuses.

mod sight;

use http::Method;
use serde_json::json;

use super::error::Kind;
use super::openapi::{Api, Route, Who};
use super::{
    accounts, authenticator, clusters, confirm, import, keys, members, operator_keys, operator_session, recovery,
    reset, session, sessions, step_up,
};
use crate::principal::{AccountId, ClusterId, SessionId, UserId};

const OPERATOR: &[Who] = &[Who::Operator];
const ROOT: &[Who] = &[Who::Root];
const USERS: &[Who] = &[Who::Root, Who::Member];
const OPERATOR_AND_ROOT: &[Who] = &[Who::Operator, Who::Root];
const OPERATOR_AND_USERS: &[Who] = &[Who::Operator, Who::Root, Who::Member];
const EVERYBODY: &[Who] = &[Who::Operator, Who::Root, Who::Member, Who::Billing];
const METER: &[Who] = &[Who::Operator, Who::Billing];

/// All of them.
pub fn routes() -> Api {
    let groups = [
        account_routes,
        member_routes,
        cluster_routes,
        own_routes,
        operator_session_routes,
        key_routes,
        operator_key_routes,
        sight::store_routes,
        sight::happening_routes,
        sight::usage_routes,
        sight::billing_routes,
        sight::correction_routes,
    ];
    groups.into_iter().fold(Api::default(), |api, add| add(api))
}

fn account_routes(api: Api) -> Api {
    let example =
        json!({"email": "new@example.com", "password": "correct horse battery", "name": "Example", "verified": true});
    let limits = json!({"type": "integer", "minimum": 1});
    api.with(
        Route::new(
            Method::POST,
            "/v1/accounts",
            accounts::create,
            ("createAccount", "Sets up an account with its root user."),
            OPERATOR,
        )
        .takes::<accounts::Create>(&example)
        .answers::<accounts::Created>(201, "The one answer that shows the TOTP secret.")
        .refuses(&[Kind::EmailTaken]),
    )
    .with(
        Route::new(
            Method::GET,
            "/v1/accounts",
            accounts::list,
            ("listAccounts", "All accounts, page by page."),
            OPERATOR,
        )
        .query("cursor", "Continues behind this account.", &json!({"$ref": "#/components/schemas/AccountId"}))
        .query("limit", "Items on a page; 100 by default, 1000 at most.", &limits)
        .answers::<accounts::Items<accounts::AccountView, AccountId>>(200, "A page."),
    )
    .with(
        Route::new(Method::GET, "/v1/accounts/{id}", accounts::read, ("readAccount", "One account."), OPERATOR)
            .answers::<accounts::AccountView>(200, "The account."),
    )
    .with(
        Route::new(
            Method::PATCH,
            "/v1/accounts/{id}",
            accounts::patch,
            ("patchAccount", "Verifies, suspends, resumes, sets limits."),
            OPERATOR,
        )
        .takes::<accounts::Patch>(&json!({"verified": true, "status": "active", "active_max": 3, "daily_max": 10}))
        .answers::<accounts::AccountView>(200, "The account, as every gateway knows it.")
        .waits::<accounts::AccountView>(),
    )
    .with(
        Route::new(
            Method::POST,
            "/v1/accounts/{id}/reset",
            reset::reset,
            ("resetAccount", "A new password and authenticator for the root user; all sessions of the account end."),
            OPERATOR,
        )
        .takes::<reset::Ask>(&json!({"reason": "lost authenticator"}))
        .answers::<reset::Renewed>(200, "The one answer that shows them."),
    )
}

fn member_routes(api: Api) -> Api {
    api.with(
        Route::new(
            Method::GET,
            "/v1/accounts/{id}/members",
            members::list,
            ("listMembers", "The members of the own account."),
            ROOT,
        )
        .answers::<accounts::Items<members::MemberView, UserId>>(200, "All of them."),
    )
    .with(
        Route::new(
            Method::POST,
            "/v1/accounts/{id}/members",
            members::create,
            ("createMember", "Adds a user with read-only rights."),
            ROOT,
        )
        .takes::<members::Create>(&json!({"email": "member@example.com", "password": "correct horse battery"}))
        .answers::<members::MemberView>(201, "The member.")
        .refuses(&[Kind::EmailTaken, Kind::MemberLimit]),
    )
    .with(
        Route::new(
            Method::DELETE,
            "/v1/accounts/{id}/members/{member}",
            members::delete,
            ("deleteMember", "Removes a member and ends their sessions."),
            ROOT,
        )
        .answers_nothing("Gone."),
    )
}

fn cluster_routes(api: Api) -> Api {
    let example = json!({"hosts": ["new.example.com"], "upstreams": ["http://127.0.0.1:9000"], "allow_ips": ["10.0.0.0/8"], "name": "prod"});
    api.with(
        Route::new(
            Method::GET,
            "/v1/accounts/{id}/clusters",
            clusters::list,
            ("listClusters", "The clusters of an account."),
            OPERATOR_AND_USERS,
        )
        .answers::<accounts::Items<clusters::ClusterView, ClusterId>>(200, "All of them."),
    )
    .with(
        Route::new(
            Method::POST,
            "/v1/accounts/{id}/clusters",
            clusters::create,
            ("createCluster", "Gives an account a cluster. An empty allow-list means open to every address."),
            OPERATOR,
        )
        .takes::<clusters::Create>(&example)
        .answers::<clusters::ClusterView>(201, "The cluster.")
        .refuses(&[Kind::HostTaken]),
    )
    .with(
        Route::new(
            Method::GET,
            "/v1/clusters/{id}",
            clusters::read,
            ("readCluster", "One cluster."),
            OPERATOR_AND_USERS,
        )
        .answers::<clusters::ClusterView>(200, "The cluster."),
    )
    .with(
        Route::new(
            Method::PATCH,
            "/v1/clusters/{id}",
            clusters::patch,
            ("patchCluster", "Changes a cluster; its owner's root user changes the allow-list alone."),
            OPERATOR_AND_ROOT,
        )
        .takes::<clusters::Patch>(&json!({"allow_ips": ["127.0.0.0/8"]}))
        .answers::<clusters::ClusterView>(200, "The cluster, as every gateway knows it.")
        .waits::<clusters::ClusterView>()
        .refuses(&[Kind::HostTaken]),
    )
    .with(
        Route::new(
            Method::DELETE,
            "/v1/clusters/{id}",
            clusters::delete,
            ("deleteCluster", "Takes a cluster away."),
            OPERATOR,
        )
        .answers_nothing("Gone from every gateway.")
        .waits::<clusters::ClusterView>(),
    )
}

/// The operator in a browser.
fn operator_session_routes(api: Api) -> Api {
    let sign_in = json!({"token": "the operator's token"});
    api.with(
        Route::new(
            Method::POST,
            "/v1/operator-session",
            operator_session::sign_in,
            ("operatorSignIn", "Exchanges the operator's token for a cookie, for browsers; good for two hours."),
            &[],
        )
        .takes::<operator_session::SignIn>(&sign_in)
        .answers::<operator_session::SignedIn>(201, "Signed in.")
        .refuses(&[Kind::SignInFailed, Kind::CrossSite]),
    )
    .with(
        Route::new(
            Method::DELETE,
            "/v1/operator-session",
            operator_session::sign_out,
            ("operatorSignOut", "Takes that cookie away."),
            OPERATOR,
        )
        .answers_nothing("Gone."),
    )
}

/// What signed-in users do for themselves.
fn own_routes(api: Api) -> Api {
    let sign_in = json!({"email": "root@example.com", "password": "correct horse battery"});
    api.with(
        Route::new(Method::POST, "/v1/session", session::sign_in, ("signIn", "Opens a session; with `cookie` its token comes as a cookie."), &[])
            .takes::<session::SignIn>(&sign_in)
            .answers::<session::SignedIn>(201, "Signed in.")
            .refuses(&[Kind::SignInFailed, Kind::TooManyAttempts, Kind::CrossSite]),
    )
    .with(
        Route::new(Method::GET, "/v1/session", session::read, ("readSession", "Who is signed in, and how their account stands."), USERS)
            .answers::<session::Facts>(200, "Who asks."),
    )
    .with(
        Route::new(Method::DELETE, "/v1/session", session::sign_out, ("signOut", "Ends the session that asks."), USERS)
            .answers_nothing("Ended."),
    )
    .with(
        Route::new(Method::GET, "/v1/sessions", sessions::list, ("listSessions", "The own sessions."), USERS)
            .answers::<accounts::Items<sessions::SessionView, SessionId>>(200, "All of them."),
    )
    .with(
        Route::new(Method::DELETE, "/v1/sessions", sessions::close_others, ("endOtherSessions", "Ends all own sessions but the one that asks."), USERS)
            .answers_nothing("Ended."),
    )
    .with(
        Route::new(Method::POST, "/v1/step-up", step_up::step_up, ("stepUp", "Exchanges a fresh code, or a recovery code, for a grant: one action, once, for two minutes."), ROOT)
            .takes::<step_up::Ask>(&json!({"action": "account", "code": "123456"}))
            .answers::<step_up::Granted>(201, "The grant, for the header Step-Up-Grant.")
            .refuses(&[Kind::CodeInvalid, Kind::CodeReplayed, Kind::TooManyCodes, Kind::NotFound]),
    )
    .with(
        Route::new(Method::POST, "/v1/password", authenticator::change_password, ("changePassword", "Changes the own password and ends all other own sessions. A root user needs a grant."), USERS)
            .takes::<authenticator::ChangePassword>(&json!({"password": "correct horse battery", "new_password": "battery horse correct"}))
            .grant(false)
            .answers_nothing("Changed.")
            .refuses(&[Kind::PasswordWrong, Kind::TooManyAttempts]),
    )
    .with(
        Route::new(Method::POST, "/v1/totp", authenticator::replace_totp, ("replaceTotp", "Replaces the authenticator: without a code it begins, with a grant; a code of the new secret puts it in force."), ROOT)
            .takes::<authenticator::ReplaceTotp>(&json!({}))
            .grant(false)
            .answers::<authenticator::NewTotp>(200, "Begun: the one answer that shows the new secret.")
            .answers_nothing("In force. All other own sessions have ended.")
            .refuses(&[Kind::CodeInvalid, Kind::TooManyCodes, Kind::NothingPending]),
    )
    .with(
        Route::new(Method::POST, "/v1/recovery-codes", recovery::replace, ("replaceRecoveryCodes", "Ten new recovery codes in place of those there were."), ROOT)
            .grant(true)
            .answers::<recovery::RecoveryCodes>(200, "The one answer that shows them."),
    )
}

fn key_routes(api: Api) -> Api {
    let deleted = json!({"type": "boolean"});
    api.with(
        Route::new(Method::GET, "/v1/keys", keys::list, ("listKeys", "The own keys, masked, and the limits."), USERS)
            .query("deleted", "Also deleted ones.", &deleted)
            .answers::<keys::KeyList>(200, "All of them."),
    )
    .with(
        Route::new(Method::POST, "/v1/keys", keys::create, ("createKey", "Creates a key."), ROOT)
            .takes::<keys::Create>(&json!({"name": "ci"}))
            .answers::<keys::Created>(201, "The one answer that shows the key without a step-up.")
            .refuses(&[Kind::AccountSuspended, Kind::IdentityUnverified, Kind::NoCluster, Kind::KeyLimit, Kind::DailyLimit]),
    )
    .with(
        Route::new(Method::GET, "/v1/keys/{id}", keys::read, ("readKey", "One key, with the receipt once it is deleted."), OPERATOR_AND_USERS)
            .answers::<keys::KeyFacts>(200, "The key."),
    )
    .with(
        Route::new(Method::PATCH, "/v1/keys/{id}", keys::patch, ("patchKey", "Renames, disables, enables, sets the expiry."), ROOT)
            .takes::<keys::Patch>(&json!({"name": "ci", "status": "active", "expires_at": "2099-01-01T00:00:00Z"}))
            .answers::<keys::KeyView>(200, "The key, as every gateway knows it.")
            .waits::<keys::KeyView>(),
    )
    .with(
        Route::new(Method::DELETE, "/v1/keys/{id}", keys::delete, ("deleteKey", "Deletes a key for good. Repeating it needs no grant and gives the present receipt, to the operator too."), ROOT)
            .grant(false)
            .wait_query()
            .answers::<confirm::Receipt>(200, "No gateway admits it any more.")
            .answers::<confirm::Receipt>(202, "Deleted, and not confirmed by every gateway yet, or not by the store."),
    )
    .with(
        Route::new(Method::POST, "/v1/keys/{id}/view", keys::view, ("viewKey", "Shows a key once more."), ROOT)
            .grant(true)
            .answers::<keys::Viewed>(200, "The key.")
            .refuses(&[Kind::NotShowable]),
    )
}

fn operator_key_routes(api: Api) -> Api {
    let deleted = json!({"type": "boolean"});
    api.with(
        Route::new(
            Method::GET,
            "/v1/accounts/{id}/keys",
            operator_keys::list,
            ("listAccountKeys", "The keys of an account, masked."),
            OPERATOR,
        )
        .query("deleted", "Also deleted ones.", &deleted)
        .answers::<keys::KeyList>(200, "All of them."),
    )
    .with(
        Route::new(
            Method::POST,
            "/v1/accounts/{id}/keys/import",
            import::import,
            ("importKeys", "Brings in keys that were made elsewhere, all or none. They count toward neither limit."),
            OPERATOR,
        )
        .takes::<import::Import>(&json!({"keys": [{"key": "sk-imported-0001", "name": "old"}]}))
        .answers::<import::Imported>(201, "Every gateway knows them.")
        .waits::<import::Imported>()
        .refuses(&[Kind::KeyTaken]),
    )
    .with(
        Route::new(
            Method::DELETE,
            "/v1/accounts/{id}/keys/{key_id}",
            operator_keys::revoke,
            ("revokeKey", "Emergency revocation, with the guarantee of a delete."),
            OPERATOR,
        )
        .takes::<operator_keys::Revoke>(&json!({"reason": "leaked"}))
        .wait_query()
        .answers::<confirm::Receipt>(200, "No gateway admits it any more.")
        .answers::<confirm::Receipt>(202, "Deleted, and not confirmed by every gateway yet, or not by the store."),
    )
    .with(
        Route::new(
            Method::POST,
            "/v1/keys/lookup",
            operator_keys::lookup,
            ("lookupKey", "Whose key was leaked?"),
            OPERATOR,
        )
        .takes::<operator_keys::Lookup>(&json!({"key": "dvk_example"}))
        .answers::<operator_keys::FoundKey>(200, "Its account.")
        .refuses(&[Kind::NotFound]),
    )
}
