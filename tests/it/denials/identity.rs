//! Who calls, and where to: keys, accounts, clusters and addresses.

use serde_json::json;
use tollgate::key::KeyText;
use tollgate::verdict::Denial;

use super::ask::{Ask, Said, Wire};
use crate::world::{Calls, DEFAULT_HOST, World};

/// One good call, and that it is the only one which the service and the ledger know of.
fn only_good_calls(world: &World, key: &str, good: u64) {
    Ask::with_key(key).over(Wire::Http1, world.gateway).is_good();
    let expected: Calls = [(("get_version".to_owned(), "ok".to_owned()), good + 1)].into();
    assert_eq!(world.ledger(good + 1), expected);
    assert_eq!(world.sample.calls(), good + 1);
}

#[test]
fn no_malformed_unknown_and_deleted_keys_cannot_be_told_apart() {
    let world = World::start("", "");
    let (account, key) = world.owner(DEFAULT_HOST);
    let deleted = world.key(&account);
    for wire in Wire::ALL {
        Ask::with_key(&deleted.text).over(wire, world.gateway).is_good();
    }
    world.delete_key(&account, &deleted);
    let unknown = KeyText::generate().unwrap();
    let mut malformed = unknown.expose().to_owned();
    malformed.replace_range(10..11, if &malformed[10..11] == "a" { "b" } else { "a" });
    let bearer = format!("Bearer {}", deleted.text);
    let too_long = "x".repeat(257);

    for wire in Wire::ALL {
        let asks = [
            Ask::default(),
            Ask::with_key(""),
            Ask::with_key("two words"),
            Ask::with_key(&malformed),
            Ask::with_key(&too_long),
            Ask::with_key(unknown.expose()),
            Ask::with_key("an-opaque-key"),
            Ask::with_key(&deleted.text),
            Ask::default().and("authorization", &bearer),
            Ask::default().and("authorization", "Basic dTpw"),
        ];
        let said: Vec<Said> = asks.iter().map(|ask| ask.over(wire, world.gateway)).collect();
        for (ask, said) in asks.iter().zip(&said) {
            said.is(Denial::NotValid);
            assert_eq!(said.comparable(), asks[0].over(wire, world.gateway).comparable(), "{ask:?}");
        }
    }
    only_good_calls(&world, &key.text, 3);
}

#[test]
fn a_request_shows_exactly_one_key_and_never_in_its_address() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    let bearer = format!("Bearer {}", key.text);
    let query = format!("?ids={}", key.text);
    for wire in Wire::ALL {
        let two = Ask::with_key(&key.text).and("authorization", &bearer);
        two.over(wire, world.gateway).is(Denial::TwoKeys);
        Ask::with_key(&key.text).and("dashvector-auth-token", &key.text).over(wire, world.gateway).is(Denial::TwoKeys);
        for query in ["?dashvector-auth-token=x", "?api_key=x", &query] {
            Ask::with_key(&key.text).query(query).over(wire, world.gateway).is(Denial::KeyInQuery);
            Ask::default().query(query).over(wire, world.gateway).is(Denial::KeyInQuery);
        }
        Ask::default().and("authorization", &bearer).over(wire, world.gateway).is_good();
    }
    only_good_calls(&world, &key.text, 3);
}

#[test]
fn a_disabled_or_expired_key_is_not_usable_until_its_owner_changes_that() {
    let world = World::start("", "");
    let (account, key) = world.owner(DEFAULT_HOST);
    let (disabled, expired) = (world.key(&account), world.key(&account));
    let patch = |id: &str, change| world.api("PATCH", &format!("/v1/keys/{id}"), &account.session, &change);
    patch(&disabled.id, json!({"status": "disabled"}));
    patch(&expired.id, json!({"expires_at": "2020-01-01T00:00:00Z"}));
    for wire in Wire::ALL {
        for key in [&disabled, &expired] {
            Ask::with_key(&key.text).over(wire, world.gateway).is(Denial::NotUsable);
        }
    }
    patch(&disabled.id, json!({"status": "active"}));
    Ask::with_key(&disabled.text).over(Wire::Grpc, world.gateway).is_good();
    only_good_calls(&world, &key.text, 1);
}

#[test]
fn a_browser_is_refused_unless_that_is_allowed() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    for wire in Wire::ALL {
        for (name, value) in [("origin", "https://page.test"), ("sec-fetch-mode", "cors")] {
            Ask::with_key(&key.text).and(name, value).over(wire, world.gateway).is(Denial::BrowserCall);
            Ask::with_key("unknown").and(name, value).over(wire, world.gateway).is(Denial::NotValid);
        }
    }
    only_good_calls(&world, &key.text, 0);

    let world = World::start("allow_browser = true", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    let said = Ask::with_key(&key.text).and("origin", "https://page.test").over(Wire::Http1, world.gateway);
    said.is_good();
    assert!(!said.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{said:?}");
}

#[test]
fn a_suspended_account_is_denied_until_it_is_resumed() {
    let world = World::start("", "");
    let (account, key) = world.owner(DEFAULT_HOST);
    Ask::with_key(&key.text).over(Wire::Http1, world.gateway).is_good();
    let switch = |status| world.operator("PATCH", &format!("/v1/accounts/{}", account.id), &json!({"status": status}));
    switch("suspended");
    for wire in Wire::ALL {
        Ask::with_key(&key.text).over(wire, world.gateway).is(Denial::AccountSuspended);
        Ask::with_key(&key.text).to("nobody.test").over(wire, world.gateway).is(Denial::AccountSuspended);
    }
    switch("active");
    only_good_calls(&world, &key.text, 1);
}

#[test]
fn a_key_opens_the_clusters_of_its_account_and_no_others() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    let (_, other) = world.owner("other.test");
    for wire in Wire::ALL {
        let ask = |key, host| Ask::with_key(key).to(host).over(wire, world.gateway);
        ask(&key.text, "nobody.test").is(Denial::UnknownCluster);
        ask("unknown", "nobody.test").is(Denial::NotValid);
        ask(&key.text, "other.test").is(Denial::NotTheOwner);
        ask(&other.text, DEFAULT_HOST).is(Denial::NotTheOwner);
        Ask::with_key(&other.text).over(wire, world.gateway).is(Denial::NotTheOwner);
        ask(&other.text, "OTHER.test.:80").is_good();
    }
    only_good_calls(&world, &key.text, 3);
}

#[test]
fn an_address_without_a_default_cluster_is_an_unknown_cluster() {
    let world = World::start("", "");
    let (_, key) = world.owner("named.test");
    for wire in Wire::ALL {
        Ask::with_key(&key.text).over(wire, world.gateway).is(Denial::UnknownCluster);
        Ask::with_key(&key.text).to("localhost").over(wire, world.gateway).is(Denial::UnknownCluster);
        Ask::with_key(&key.text).to("named.test").over(wire, world.gateway).is_good();
    }
    assert_eq!(world.ledger(3).values().sum::<u64>(), 3);
}

#[test]
fn an_allow_list_goes_by_the_address_that_a_trusted_proxy_vouches_for() {
    let world = World::start("trusted_proxies = [\"127.0.0.0/8\"]", "");
    let (account, key) = world.owner(DEFAULT_HOST);
    world.cluster(&account, "listed.test", world.sample.at, &["10.9.0.0/16"]);
    world.cluster(&account, "mapped.test", world.sample.at, &["::ffff:10.9.0.0/112"]);
    let good = Wire::ALL.len() as u64 * 3;
    for wire in Wire::ALL {
        for (host, forwarded, allowed) in [
            ("listed.test", "10.9.1.1", true),
            ("mapped.test", "10.9.1.1", true),
            ("listed.test", "6.6.6.6, 10.9.1.1, 127.0.0.7", true),
            ("listed.test", "10.9.1.1, 6.6.6.6", false),
            ("listed.test", "unknown", false),
            ("listed.test", "", false),
        ] {
            let ask = Ask::with_key(&key.text).to(host).and("x-forwarded-for", forwarded);
            let said = ask.over(wire, world.gateway);
            if allowed { said.is_good() } else { said.is(Denial::AddressNotAllowed) }
        }
        Ask::with_key(&key.text).to("listed.test").over(wire, world.gateway).is(Denial::AddressNotAllowed);
    }
    only_good_calls(&world, &key.text, good);
}

#[test]
fn nobody_else_is_believed_where_a_call_comes_from() {
    let world = World::start("", "");
    let (account, key) = world.owner(DEFAULT_HOST);
    world.cluster(&account, "listed.test", world.sample.at, &["10.9.0.0/16"]);
    world.cluster(&account, "here.test", world.sample.at, &["127.0.0.1"]);
    for wire in Wire::ALL {
        let ask = Ask::with_key(&key.text).and("x-forwarded-for", "10.9.1.1");
        ask.clone().to("listed.test").over(wire, world.gateway).is(Denial::AddressNotAllowed);
        ask.to("here.test").over(wire, world.gateway).is_good();
    }
    only_good_calls(&world, &key.text, 3);
}

#[test]
fn denials_in_the_body_are_a_success_to_http_and_the_same_to_grpc() {
    let world = World::start("http_denials = \"in_body\"", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    for wire in Wire::ALL {
        for (ask, denial) in [
            (Ask::default(), Denial::NotValid),
            (Ask::with_key(&key.text).query("?api_key=x"), Denial::KeyInQuery),
            (Ask::with_key(&key.text).to("nobody.test"), Denial::UnknownCluster),
            (Ask::with_key(&key.text).and("origin", "null"), Denial::BrowserCall),
        ] {
            let said = ask.over(wire, world.gateway);
            said.is_in_form(denial, 200);
            assert_eq!(said.header("www-authenticate"), None, "{said:?}");
        }
    }
    only_good_calls(&world, &key.text, 0);
}
