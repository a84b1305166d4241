//! `tollgate cluster`.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, ClientError, Control};
use super::table::{Column, Show, items};

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// The clusters of an account.
    List {
        account: String,
    },
    /// Give an account a cluster.
    Create {
        account: String,
        #[command(flatten)]
        settings: Settings,
    },
    Show {
        cluster: String,
    },
    /// Change a cluster. What is not named stays as it is.
    Update {
        cluster: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Take a cluster away: calls to its hosts are denied.
    Delete {
        cluster: String,
    },
}

#[derive(Debug, Args)]
pub struct Settings {
    /// A name by which clients call it, without a port. May be given more than once, like the others.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// A URL of the vector service, like http://10.0.0.5:9000.
    #[arg(long = "upstream", value_name = "URL")]
    upstreams: Vec<String>,
    /// A network that may call it, like 10.0.0.0/8. With none named at creation, every address may.
    #[arg(long = "allow", value_name = "CIDR")]
    allow_ips: Vec<String>,
    /// Open it to every address.
    #[arg(long, conflicts_with = "allow_ips")]
    allow_all: bool,
    #[arg(long)]
    name: Option<String>,
}

const COLUMNS: &[Column] = &[
    ("CLUSTER", "cluster_id"),
    ("NAME", "name"),
    ("HOSTS", "hosts"),
    ("UPSTREAMS", "upstreams"),
    ("ALLOWED", "allow_ips"),
];

impl Settings {
    fn body(self) -> Value {
        let lists = [("hosts", self.hosts), ("upstreams", self.upstreams), ("allow_ips", self.allow_ips)];
        let named = lists.into_iter().filter(|(_, list)| !list.is_empty());
        let mut body: Map<_, _> = named.map(|(field, list)| (field.to_owned(), json!(list))).collect();
        if self.allow_all {
            body.insert("allow_ips".to_owned(), json!([]));
        }
        body.extend(self.name.map(|name| ("name".to_owned(), json!(name))));
        Value::Object(body)
    }
}

impl Cluster {
    pub fn run(self, control: &Control) -> Result<String, ClientError> {
        let client = Client::with_token(control, "the operator's token, or a session token")?;
        let show = Show::new(control.json);
        let one =
            |method, cluster: &str, body: Option<&Value>| client.call(method, &format!("/v1/clusters/{cluster}"), body);
        match self {
            Self::List { account } => {
                let clusters = client.call(Method::GET, &format!("/v1/accounts/{account}/clusters"), None)?;
                Ok(show.rows(COLUMNS, items(&clusters, "items")))
            }
            Self::Create { account, settings } => {
                let path = format!("/v1/accounts/{account}/clusters");
                Ok(show.thing(&client.call(Method::POST, &path, Some(&settings.body()))?))
            }
            Self::Show { cluster } => Ok(show.thing(&one(Method::GET, &cluster, None)?)),
            Self::Update { cluster, settings } => {
                Ok(show.thing(&one(Method::PATCH, &cluster, Some(&settings.body()))?))
            }
            Self::Delete { cluster } => match one(Method::DELETE, &cluster, None)? {
                Value::Null => Ok(show.done("The cluster is gone from every gateway.")),
                pending => Ok(show.thing(&pending)),
            },
        }
    }
}
