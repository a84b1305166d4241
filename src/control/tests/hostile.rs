//! What nobody should send: answered as a problem, never with a 5xx, and nothing secret ever comes back.

use super::*;

#[tokio::test]
async fn hostile_bodies_are_problems_of_the_caller() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let many = format!("{{\"name\": \"{}\"}}", "n".repeat(200));
    let bodies: Vec<Vec<u8>> = vec![
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\xff\xfe".to_vec(),
        b"{\"name\": 1}".to_vec(),
        b"{\"unknown\": 1}".to_vec(),
        b"{\"name\":\"a\",\"name\":\"b\"}".to_vec(),
        b"{\"name\":\"a\\u0000b\"}".to_vec(),
        many.into_bytes(),
        deep.into_bytes(),
    ];
    let routes = [
        (Method::POST, "/v1/session".to_owned(), ""),
        (Method::POST, "/v1/accounts".to_owned(), &world.operator),
        (Method::POST, format!("/v1/accounts/{}/clusters", owner.account_id), &world.operator),
        (Method::POST, format!("/v1/accounts/{}/keys/import", owner.account_id), &world.operator),
        (Method::PATCH, format!("/v1/accounts/{}", owner.account_id), &world.operator),
        (Method::POST, "/v1/keys".to_owned(), &owner.token),
        (Method::POST, "/v1/step-up".to_owned(), &owner.token),
        (Method::POST, "/v1/keys/lookup".to_owned(), &world.operator),
    ];
    for (method, path, token) in &routes {
        for body in &bodies {
            let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
            let request = request.header("authorization", format!("Bearer {token}"));
            let answer = world.send(request.body(Body::from(body.clone())).unwrap()).await;
            answer.problem(400, "invalid_request");
        }
    }
}

#[tokio::test]
async fn bodies_have_a_size_and_a_type() {
    let world = World::new();
    let large = json!({"name": "n".repeat(65 * 1024)});
    let owner = world.owner("one@example.com").await;
    world.post(&owner.token, "/v1/keys", large).await.problem(413, "body_too_large");
    let import = format!("/v1/accounts/{}/keys/import", owner.account_id);
    let most = json!({"keys": [{"key": "k", "name": "n".repeat(65 * 1024)}]});
    world.post(&world.operator, &import, most).await.problem(400, "invalid_request");
    let too_many = json!({"keys": [{"key": "k".repeat(1024 * 1024)}]});
    world.post(&world.operator, &import, too_many).await.problem(413, "body_too_large");
    let form = Request::post("/v1/session").header("content-type", "application/x-www-form-urlencoded");
    let form = form.body(Body::from("email=a@b&password=c")).unwrap();
    world.send(form).await.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn hostile_paths_and_queries_are_problems_of_the_caller() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    for path in ["/v1/keys/%ff", "/v1/keys/key_%2e%2e", "/v1/keys/clu_aaaaaaaaaaaaaaaa", "/v1//keys", "/v1/keys/"] {
        world.get(&owner.token, path).await.problem(404, "not_found");
    }
    for query in ["wait=1h", "wait=-1", "wait=NaN", "other=1", "wait=1s&wait=2s"] {
        let path = format!("/v1/keys/key_aaaaaaaaaaaaaaaa?{query}");
        world.call(&owner.token, Method::DELETE, &path, Value::Null).await.problem(400, "invalid_request");
    }
    for query in [
        "account=x",
        "operation=x",
        "from=yesterday",
        "limit=-1",
        "cursor=!",
        "cursor=AAAA",
        "by=x",
        "format=xml",
        "x=1",
    ] {
        let path = format!("/v1/usage/records?{query}");
        world.get(&owner.token, &path).await.problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn hostile_clusters_are_refused() {
    let world = World::new();
    let owner = world.bare_owner("one@example.com").await;
    let path = format!("/v1/accounts/{}/clusters", owner.account_id);
    let good = |key: &str, value: Value| {
        let mut cluster = json!({"hosts": ["a.example.com"], "upstreams": ["http://127.0.0.1:1"], "allow_ips": []});
        cluster[key] = value;
        cluster
    };
    for (key, value) in [
        ("hosts", json!([])),
        ("hosts", json!(["a:80"])),
        ("hosts", json!(["http://a"])),
        ("hosts", json!(["a b"])),
        ("upstreams", json!([])),
        ("upstreams", json!(["file:///etc/passwd"])),
        ("upstreams", json!(["http://user:pw@h:1"])),
        ("allow_ips", json!(["10.0.0.0/33"])),
        ("allow_ips", json!(["everyone"])),
    ] {
        let shown = format!("{key} {value}");
        let answer = world.post(&world.operator, &path, good(key, value)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{shown}: {}", answer.text);
        let rule = answer.problem(400, "invalid_request")["detail"].as_str().unwrap().to_owned();
        assert!(["host", "upstream", "allow_ips", "list"].iter().any(|word| rule.contains(word)), "{shown}: {rule}");
    }
    world.post(&world.operator, &path, good("name", json!("fine"))).await.ok(201);
}

#[tokio::test]
async fn no_secret_comes_back_in_an_error() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (id, key) = world.key(&owner).await;
    let code = owner.totp.code_at(clock::wall()).to_string();
    let totp = owner.totp.to_base32().to_string();
    let secrets = [PASSWORD, &key, &code, &totp, &owner.token, &world.operator];
    for secret in secrets {
        for body in [
            json!({"email": "one@example.com", "password": [secret]}),
            json!({"email": secret, "password": secret}),
            json!({"email": "one@example.com", "password": secret, secret: secret}),
            json!({"action": secret, "key_id": secret, "code": secret}),
            json!({"action": "view", "key_id": id, "code": [secret]}),
            json!({"key": [secret]}),
            json!({"keys": [{"key": secret, "name": [secret]}]}),
            json!({"keys": [{"key": format!("dvk_{secret} ")}]}),
            json!(secret),
        ] {
            for (path, token) in [
                ("/v1/session", ""),
                ("/v1/accounts", &world.operator),
                ("/v1/step-up", &owner.token),
                ("/v1/keys", &owner.token),
                ("/v1/keys/lookup", &world.operator),
                (&format!("/v1/accounts/{}/keys/import", owner.account_id), &world.operator),
            ] {
                let answer = world.post(token, path, body.clone()).await;
                assert!(answer.status.is_client_error(), "{path} {}", answer.status);
                assert!(!answer.text.contains(secret), "{path}: {}", answer.text);
                assert!(!format!("{:?}", answer.headers).contains(secret), "{path}");
            }
        }
        let answer = world.get(secret, &format!("/v1/keys/{secret}?{secret}={secret}")).await;
        assert!(!answer.text.contains(secret), "{}", answer.text);
    }
}
