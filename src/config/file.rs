//! The configuration as written: reads the file against the table of settings and makes the meant form of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use toml::{Table, Value};

use super::mistakes::{Found, Mistake, Mistakes};
use super::settings::{self as s, Defaulted, Optional, Row};
use super::written::{Form, Name, StoreName, Wrong};
use super::{
    Config, ControlConfig, GatewayConfig, HealthConfig, KeysConfig, LedgerConfig, LimitsConfig, MeterConfig,
    RedisConfig, SecretsConfig, SentinelConfig, SentinelUrl, StoreConfig, StoreKind, TlsConfig, check, unknown,
};

impl Config {
    /// Reads and checks the file, with everything it names. Fails with all mistakes at once.
    pub fn load(file: &Path) -> Result<Self, Mistakes> {
        let root = read_table(file).map_err(|mistake| Mistakes { file: file.into(), all: vec![mistake] })?;
        let mut read = Reader { root: &root, base: base_of(file), found: Found::default() };
        unknown::find(&root, &mut read.found);
        let config = config(&mut read);
        check::check(&config, &mut read.found);
        read.found.or(config, file)
    }

    /// A node with both planes and every key at its default, paths relative to `base`. Nothing is checked.
    pub fn defaults_in(base: &Path) -> Self {
        let both = ["gateway", "control"].map(|section| (section.to_owned(), Value::Table(Table::new())));
        let root = Table::from_iter(both);
        config(&mut Reader { root: &root, base: base.into(), found: Found::default() })
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        limits(&mut Reader { root: &Table::new(), base: PathBuf::new(), found: Found::default() })
    }
}

impl Default for KeysConfig {
    fn default() -> Self {
        keys(&mut Reader { root: &Table::new(), base: PathBuf::new(), found: Found::default() })
    }
}

fn read_table(file: &Path) -> Result<Table, Mistake> {
    let whole = |text| Mistake { key: String::new(), text };
    let text = fs::read_to_string(file).map_err(|error| whole(format!("the file cannot be read: {error}")))?;
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map(|span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        whole(format!("{place}this is not TOML: {}", error.message().trim_end()))
    })
}

fn base_of(file: &Path) -> PathBuf {
    file.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Typed access to the file by the keys of the table. A wrong value is noted, and stood in for by the default so that
/// reading goes on.
struct Reader<'a> {
    root: &'a Table,
    base: PathBuf,
    found: Found,
}

impl Reader<'_> {
    fn get<T: Form>(&mut self, setting: &Defaulted<T>) -> T {
        self.read(&setting.0).unwrap_or_else(|| from_table(setting.0.written.text()))
    }

    fn find<T: Form>(&mut self, setting: &Optional<T>) -> Option<T> {
        self.read(&setting.0)
    }

    fn path(&mut self, setting: &Defaulted<PathBuf>) -> PathBuf {
        let path = self.get(setting);
        self.base.join(path)
    }

    fn find_path(&mut self, setting: &Optional<PathBuf>) -> Option<PathBuf> {
        self.find(setting).map(|path| self.base.join(path))
    }

    fn has(&self, section: &str) -> bool {
        self.root.contains_key(section)
    }

    fn read<T: Form>(&mut self, row: &Row) -> Option<T> {
        match T::read(lookup(self.root, row.path)?) {
            Ok(value) => self.in_range(row, value),
            Err(wrong) => {
                self.found.note(key_of(row, &wrong), message(row, &wrong));
                None
            }
        }
    }

    fn in_range<T: Form>(&mut self, row: &Row, value: T) -> Option<T> {
        let Some((low, high)) = row.range else {
            return Some(value);
        };
        if from_table::<T>(low) <= value && value <= from_table::<T>(high) {
            return Some(value);
        }
        self.found.note(row.path, format!("the value is out of range; write one from {low} to {high}"));
        None
    }
}

fn lookup<'a>(root: &'a Table, path: &str) -> Option<&'a Value> {
    let (section, key) = path.rsplit_once('.')?;
    let table = section.split('.').try_fold(root, |table, name| table.get(name)?.as_table())?;
    table.get(key)
}

fn key_of(row: &Row, wrong: &Wrong) -> String {
    match wrong.at {
        Some(at) => format!("{}[{at}]", row.path),
        None => row.path.to_owned(),
    }
}

/// `"75" is not a duration; write it like "75s"`.
fn message(row: &Row, wrong: &Wrong) -> String {
    let example = row.written.text();
    let like = if example == "[]" { "a list like [\"…\"]" } else { example };
    format!("{} is not {}; write it like {like}", wrong.got, wrong.wanted)
}

/// Reads a text of the table of settings itself.
#[expect(clippy::expect_used, reason = "the texts are constants of this program, and a test reads each of them")]
fn from_table<T: Form>(text: &str) -> T {
    let table: Table = format!("value = {text}").parse().expect("a text of the table is TOML");
    let value = table.get("value").expect("it was just written");
    T::read(value).expect("a text of the table has the type of its key")
}

fn config(read: &mut Reader<'_>) -> Config {
    let (archive, retention) = (read.find_path(&s::ARCHIVE), read.get(&s::RETENTION));
    Config {
        gateway: read.has("gateway").then(|| gateway(read)),
        control: read.has("control").then(|| control(read)),
        health: HealthConfig { listen: read.find(&s::HEALTH_LISTEN) },
        store: store(read),
        secrets: SecretsConfig {
            pepper_file: read.path(&s::PEPPER_FILE),
            previous_pepper_file: read.find_path(&s::PREVIOUS_PEPPER_FILE),
            sealing_key_file: read.path(&s::SEALING_KEY_FILE),
            previous_sealing_key_file: read.find_path(&s::PREVIOUS_SEALING_KEY_FILE),
        },
        meter: MeterConfig {
            retention: archive.is_some().then_some(retention),
            archive: archive.unwrap_or_else(|| read.path(&s::METER_DIR).join("archive")),
            dir: read.path(&s::METER_DIR),
            slab_dir: read.find_path(&s::SLAB_DIR),
            ledger: ledger(read),
            flush: read.get(&s::FLUSH),
        },
        keys: keys(read),
    }
}

fn gateway(read: &mut Reader<'_>) -> GatewayConfig {
    GatewayConfig {
        listen: read.get(&s::GATEWAY_LISTEN),
        tls: tls(read, &s::GATEWAY_TLS_CERT, &s::GATEWAY_TLS_KEY),
        threads: match read.get(&s::THREADS) {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        },
        default_cluster: read.find(&s::DEFAULT_CLUSTER).map(|name| name.0),
        http_denials: read.get(&s::HTTP_DENIALS),
        allow_browser: read.get(&s::ALLOW_BROWSER),
        serve_unmetered: read.get(&s::SERVE_UNMETERED),
        trusted_proxies: read.get(&s::TRUSTED_PROXIES),
        grpc_services: texts(read.get(&s::GRPC_SERVICES)),
        limits: limits(read),
    }
}

fn limits(read: &mut Reader<'_>) -> LimitsConfig {
    LimitsConfig {
        header_bytes: read.get(&s::HEADER_BYTES).usize(),
        header_fields: read.get(&s::HEADER_FIELDS),
        uri_bytes: read.get(&s::URI_BYTES).usize(),
        first_byte: read.get(&s::FIRST_BYTE),
        whole_header: read.get(&s::WHOLE_HEADER),
        idle: read.get(&s::IDLE),
        tls_handshake: read.get(&s::TLS_HANDSHAKE),
        http_body_bytes: read.get(&s::HTTP_BODY_BYTES).0,
        grpc_message_bytes: read.get(&s::GRPC_MESSAGE_BYTES).0,
        response_header_bytes: read.get(&s::RESPONSE_HEADER_BYTES).usize(),
        slow_body_rate: read.get(&s::SLOW_BODY_RATE).0,
        slow_body_after: read.get(&s::SLOW_BODY_AFTER),
        h2_streams: read.get(&s::H2_STREAMS),
        h2_stream_window: read.get(&s::H2_STREAM_WINDOW).u32(),
        h2_connection_window: read.get(&s::H2_CONNECTION_WINDOW).u32(),
        connections_per_address: read.get(&s::CONNECTIONS_PER_ADDRESS),
        connections: read.get(&s::CONNECTIONS),
        upstream_connect: read.get(&s::UPSTREAM_CONNECT),
        upstream_first_byte: read.get(&s::UPSTREAM_FIRST_BYTE),
        total: read.get(&s::TOTAL),
        denial_read_on: read.get(&s::DENIAL_READ_ON),
        denial_read_on_bytes: read.get(&s::DENIAL_READ_ON_BYTES).0,
        abandoned_drain: read.get(&s::ABANDONED_DRAIN),
        abandoned_calls: read.get(&s::ABANDONED_CALLS),
        shutdown: read.get(&s::SHUTDOWN),
        failed_auth_rate: read.get(&s::FAILED_AUTH_RATE),
        failed_auth_burst: read.get(&s::FAILED_AUTH_BURST),
        failed_auth_delay: read.get(&s::FAILED_AUTH_DELAY),
        account_concurrency: read.get(&s::ACCOUNT_CONCURRENCY),
        account_rate: read.get(&s::ACCOUNT_RATE),
        calls: read.get(&s::CALLS),
        account_burst: read.get(&s::ACCOUNT_BURST),
    }
}

fn control(read: &mut Reader<'_>) -> ControlConfig {
    ControlConfig {
        listen: read.get(&s::CONTROL_LISTEN),
        tls: tls(read, &s::CONTROL_TLS_CERT, &s::CONTROL_TLS_KEY),
        id: read.find(&s::CONTROL_ID).map_or_else(host_name, |name| name.0),
        peers: texts(read.get(&s::CONTROL_PEERS)),
        endpoint: read.get(&s::ENDPOINT).0,
        operator_token_file: read.path(&s::OPERATOR_TOKEN_FILE),
        billing_token_file: read.find_path(&s::BILLING_TOKEN_FILE),
    }
}

fn store(read: &mut Reader<'_>) -> StoreConfig {
    let (lease, path) = (read.get(&s::LEASE), read.path(&s::STORE_PATH));
    let (url, replicas) = (read.find(&s::STORE_URL), read.get(&s::STORE_REPLICAS));
    let sentinel = sentinel(read, &s::SENTINEL_MASTER, &s::SENTINEL_NODES);
    let kind = match (read.get(&s::STORE_KIND), url) {
        (StoreName::Embedded, _) => StoreKind::Embedded { path },
        (StoreName::Redis, Some(url)) => StoreKind::Redis(RedisConfig { url, sentinel, replicas }),
        (StoreName::Redis, None) => {
            let row = s::STORE_URL.0;
            let example = row.written.text();
            read.found.note(row.path, format!("is missing: the store is on redis; add a line like url = {example}"));
            StoreKind::Embedded { path }
        }
    };
    StoreConfig { kind, lease }
}

fn ledger(read: &mut Reader<'_>) -> Option<LedgerConfig> {
    let url = read.find(&s::LEDGER_URL);
    let sentinel = sentinel(read, &s::LEDGER_SENTINEL_MASTER, &s::LEDGER_SENTINEL_NODES);
    if url.is_none() && sentinel.is_some() {
        let row = s::LEDGER_URL.0;
        let example = row.written.text();
        read.found.note(
            row.path,
            format!("is missing: it says how to come to the ledger; add a line like ledger_url = {example}"),
        );
    }
    url.map(|url| LedgerConfig { url, sentinel })
}

fn sentinel(
    read: &mut Reader<'_>,
    master_key: &s::Optional<Name>,
    nodes_key: &s::Defaulted<Vec<SentinelUrl>>,
) -> Option<SentinelConfig> {
    let (master, nodes) = (read.find(master_key), read.get(nodes_key));
    match (master, nodes.is_empty()) {
        (Some(master), false) => Some(SentinelConfig { master: master.0, nodes }),
        (None, true) => None,
        (Some(_), true) => {
            read.found.note(nodes_key.0.path, "is missing: sentinel.master is of no use without sentinels to ask");
            None
        }
        (None, false) => {
            read.found.note(master_key.0.path, "is missing: the sentinels must be told which master is meant");
            None
        }
    }
}

fn keys(read: &mut Reader<'_>) -> KeysConfig {
    KeysConfig {
        active_max: read.get(&s::ACTIVE_MAX),
        daily_max: read.get(&s::DAILY_MAX),
        day_offset: read.get(&s::DAY_OFFSET).0,
    }
}

/// TLS needs both files; one without the other is a mistake at the missing one.
fn tls(read: &mut Reader<'_>, cert: &Optional<PathBuf>, key: &Optional<PathBuf>) -> Option<TlsConfig> {
    let missing = match (read.find_path(cert), read.find_path(key)) {
        (Some(cert), Some(key)) => return Some(TlsConfig { cert, key }),
        (None, None) => return None,
        (None, Some(_)) => cert.0,
        (Some(_), None) => key.0,
    };
    let example = missing.written.text();
    read.found.note(missing.path, format!("is missing: TLS needs both cert and key; add a line like {example}"));
    None
}

fn texts(names: Vec<Name>) -> Vec<String> {
    names.into_iter().map(|name| name.0).collect()
}

fn host_name() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = read.trim();
    if name.is_empty() { "control".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Written;

    /// A folder with the two secrets and the token that the defaults name.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let key = data_encoding::BASE64.encode(&[7; 32]);
        for (name, content) in [("pepper", &key), ("sealing.key", &key), ("operator.token", &key)] {
            write_private(&folder.path().join(name), content);
        }
        folder
    }

    fn write_private(path: &Path, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn load(folder: &tempfile::TempDir, text: &str) -> Result<Config, Mistakes> {
        let file = folder.path().join("config.toml");
        fs::write(&file, text).unwrap();
        Config::load(&file)
    }

    #[test]
    fn every_default_example_and_range_of_the_table_can_be_read() {
        let folder = folder();
        let defaults = Config::defaults_in(folder.path());
        let (gateway, control) = (defaults.gateway.unwrap(), defaults.control.unwrap());
        assert_eq!(gateway.limits.header_bytes, 32 * 1024);
        assert_eq!(gateway.limits.idle.as_secs(), 75);
        assert_eq!(gateway.grpc_services.len(), 2);
        assert_eq!(control.operator_token_file, folder.path().join("operator.token"));
        assert_eq!(defaults.keys.day_offset, 8 * 3600);

        for row in s::ALL {
            let shown =
                super::super::print::with_values(|other| (other.path == row.path).then_some(row.written.text()));
            if let (Err(mistakes), Written::Default(_)) = (load(&folder, &shown), row.written) {
                panic!("{mistakes}\n{shown}");
            }
            for end in row.range.map(|(low, high)| [low, high]).into_iter().flatten() {
                let shown = super::super::print::with_values(|other| (other.path == row.path).then_some(end));
                let ends = load(&folder, &shown).err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
                assert!(!ends.contains("is not a"), "{ends}");
            }
        }
    }

    #[test]
    fn the_default_file_says_what_leaving_everything_out_says() {
        let folder = folder();
        let short = load(&folder, "[gateway]\n[control]\n").unwrap();
        let long = load(&folder, &crate::config::print::default_file()).unwrap();
        assert_eq!(format!("{short:?}"), format!("{long:?}"));
        assert_eq!(format!("{short:?}"), format!("{:?}", Config::defaults_in(folder.path())));
    }

    #[test]
    fn every_key_of_the_table_is_read_by_someone() {
        // A key that is known but never read would be accepted with any value in it.
        let folder = folder();
        for row in s::ALL {
            let wrong = super::super::print::with_values(|other| (other.path == row.path).then_some("1979-05-27"));
            let mistakes = load(&folder, &wrong).unwrap_err();
            assert!(mistakes.all.iter().any(|mistake| mistake.key == row.path), "{}: {mistakes}", row.path);
        }
    }

    #[test]
    fn all_mistakes_come_at_once_each_under_its_key() {
        let folder = folder();
        let text = "[gateway]\nlisen = []\n[gateway.limits]\nidle = \"75\"\nheader_bytes = \"1KiB\"\n[keys]\nactive_max = -1\n";
        let mistakes = load(&folder, text).unwrap_err();
        let lines: Vec<_> = mistakes.all.iter().map(ToString::to_string).collect();
        for wanted in [
            "gateway.lisen: there is no such key; did you mean listen?",
            "gateway.limits.idle: \"75\" is not a duration; write it like \"75s\"",
            "gateway.limits.header_bytes: the value is out of range; write one from \"8KiB\" to \"1MiB\"",
            "keys.active_max: -1 is not a whole number; write it like 3",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted} is not in {lines:#?}");
        }
    }

    #[test]
    fn what_is_not_toml_is_named_by_its_line() {
        let mistakes = load(&folder(), "[gateway]\nlisten =\n").unwrap_err();
        assert!(mistakes.to_string().contains("line 2: this is not TOML"), "{mistakes}");
    }
}
