//! What the demo says once it serves: one line of JSON for programs, a page of text for people.

use super::seed::Facts;

/// Exactly one line.
pub fn line(facts: &Facts) -> String {
    let mut line = serde_json::to_string(facts).unwrap_or_default();
    line.push('\n');
    line
}

/// Everything to try, ready to be copied.
pub fn text(facts: &Facts) -> String {
    let tollgate = program();
    let Facts { gateway, control, email, password, totp_secret, operator_token, upstream, .. } = facts;
    let endpoint = gateway.trim_start_matches("http://");
    let key = facts.api_key.as_deref().unwrap_or("<the demo's key was deleted: create one>");
    let shown = facts.api_key.as_deref().unwrap_or("deleted; create a new one (see Keys)");
    format!(
        r#"
  Tollgate is serving.

    Gateway          {gateway}
    API key          {shown}
    Control plane    {control}
    Vector service   {upstream} (a sample, inside this process)

  Call it
    curl {gateway}/v1/collections -H 'dashvector-auth-token: {key}'

  From Python (pip install dashvector)
    import os; os.environ["DASHVECTOR_INSECURE_MODE"] = "true"
    import dashvector, dashvector.util.validator as v
    v.ENDPOINT_PATTERN = ".*"                     # the SDK refuses ports and addresses otherwise
    client = dashvector.Client(api_key="{key}", endpoint="{endpoint}")
    client.create("quickstart", 4)
    quickstart = client.get("quickstart")
    quickstart.insert(dashvector.Doc(id="1", vector=[0.1, 0.2, 0.3, 0.4]))
    print(quickstart.query([0.1, 0.2, 0.3, 0.4], topk=1))

  Read the usage (the operator's token)
    curl {control}/v1/usage/records -H 'Authorization: Bearer {operator_token}'

  Keys (sign in as the account's owner, in a browser at {control} or from a program)
    e-mail           {email}
    password         {password}
    a code, without a phone:  {tollgate} totp {totp_secret}

    TOKEN=$(curl -s {control}/v1/session -H 'content-type: application/json' \
      -d '{{"email":"{email}","password":"{password}"}}' | sed 's/.*"token":"\([^"]*\)".*/\1/')
    curl {control}/v1/keys -H "Authorization: Bearer $TOKEN"            # list
    curl {control}/v1/keys -H "Authorization: Bearer $TOKEN" -X POST    # create

  Ctrl-C stops it; calls in flight are ended first.

"#
    )
}

/// This program as it can be called from here: the one that runs need not be on the path.
fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "tollgate".into());
    let here = std::env::current_dir().unwrap_or_default();
    program.strip_prefix(&here).map_or_else(|_| program.display().to_string(), |below| format!("./{}", below.display()))
}
