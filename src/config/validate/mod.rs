//! From TOML with places to the model: every key read, every value checked, every error collected.
//!
//! Keeps true: a value in the model is in range.
//! Must not know: how errors are shown.

mod agora_rest;
mod authorize_hook;
mod connection_options;
mod connection_string;
mod jwt;
mod limits;
mod mongodb;
mod redis;
mod reissue;
mod routes;
mod server;
mod source_tables;
mod tiers;
mod timeouts;
mod tls;
mod tokens;
mod upstream;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::credentials::SecretReader;
use super::diagnostic::ConfigErrors;
use super::environment::{Environment, SystemEnvironment};
use super::keys;
use super::model::{
    AccountsSource, Admin, AuditSink, Config, DecisionConfig, DecisionMode, Log, LogFormat,
    LogLevel, OnStale, PolicyConfig, RevocationConfig, SessionsConfig, StreamsSource,
};
use super::raw::{self, ConfigReader, RawItem, RawTable, Remarks};

/// The directory that the unit's `LogsDirectory=` makes before the daemon starts.
const LOGS_DIRECTORY: &str = "/var/log/renewd";

/// How much of the unit's surroundings must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// Everything must be there: the daemon starts with the result.
    Run,
    /// Credentials and variables may be missing.
    Check,
}

/// The model and the findings that aren't errors.
pub(super) struct Validated {
    pub(super) config: Config,
    pub(super) remarks: Remarks,
    pub(super) hash: u64,
    pub(super) files: Vec<PathBuf>,
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A longer timer is a mistake, and some clocks overflow on much more.
const LONGEST: Duration = seconds(365 * 24 * 3600);
const ANY_DURATION: RangeInclusive<Duration> = Duration::ZERO..=LONGEST;
const POSITIVE_DURATION: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
/// A table with this many entries still fits into a small machine's memory.
const TABLE_SIZES: RangeInclusive<u64> = 1..=100_000_000;

const EMPTY_HINT: &str =
    "an empty file isn't \"all defaults\": it may be half written. Start from config.example.toml";

/// `[admin]` alone, for a command that asks a running daemon: the rest of the file may be wrong, or out of reach.
pub(super) fn admin(
    text: &str,
    origin: &Path,
    environment: &dyn Environment,
) -> Result<Admin, ConfigErrors> {
    let tree = raw::parse(text, origin, EMPTY_HINT, keys::known())?;
    let reader = ConfigReader::new(text, origin, &tree);
    let secrets = SecretReader::new(environment, origin, Strictness::Check);
    let table = reader.root().table("admin");
    // Without a survey the value has to be hidden here: it may be the secret itself.
    if let Some(item) = table.find("token_file") {
        item.hide();
    }
    let admin = server::admin(&table, &secrets);
    reader.finish()?;
    Ok(admin)
}

/// Reads `text` into the model, or says everything that is wrong with it.
pub(super) fn validate(
    text: &str,
    origin: &Path,
    environment: &dyn Environment,
    strictness: Strictness,
) -> Result<Validated, ConfigErrors> {
    let tree = raw::parse(text, origin, EMPTY_HINT, keys::known())?;
    let reader = ConfigReader::new(text, origin, &tree);
    reader.survey(keys::known());
    let secrets = SecretReader::new(environment, origin, strictness);
    let config = config(&reader.root(), &secrets);
    let mut files = secrets.files.into_inner();
    files.extend(config.streams.file().map(Path::to_path_buf));
    files.sort();
    files.dedup();
    let remarks = match reader.finish() {
        Ok(remarks) => remarks,
        Err(errors) => return Err(ConfigErrors { files, ..errors }),
    };
    Ok(Validated {
        config,
        remarks,
        hash: super::hash(&reader.public_text()),
        files,
    })
}

/// Asks an absent file for every key there is.
pub(super) fn ask_for_everything(root: &RawTable<'_>) {
    let secrets = SecretReader::new(&SystemEnvironment, Path::new(""), Strictness::Run);
    config(root, &secrets);
}

/// The model. No key may be asked for only where another one is there: [`keys`] learns of the keys by an absent file.
fn config(root: &RawTable<'_>, secrets: &SecretReader<'_>) -> Config {
    let server = server::server(&root.table("server"), secrets);
    let admin = server::admin(&root.table("admin"), secrets);
    let decision = decision(&root.table("decision"));
    let upstream = upstream::upstream(&root.table("upstream"), secrets);
    let agora = tokens::agora(&root.table("agora"), secrets);
    let mut routes = routes::routes(&root.table("routes"));
    let token = tokens::token(&root.table("token"));
    let jwt = jwt::jwt(&root.table("auth").table("jwt"), secrets);
    let cookie = jwt::cookie(&root.table("auth"));
    let cors = routes::cors(&root.table("cors"), secrets.strictness, cookie.is_some());
    let reissue = reissue::reissue(&root.table("reissue"), &routes);
    let rate_limit = limits::rate_limit(&root.table("rate_limit"));
    let accounts = source_tables::accounts(&root.table("accounts"), &root.table("streams"));
    let streams = source_tables::streams(&root.table("streams"), secrets);
    let mongodb = mongodb::mongodb(
        &root.table("mongodb"),
        matches!(accounts.source, AccountsSource::Mongodb(_))
            || matches!(streams.source, StreamsSource::Mongodb(_)),
        secrets,
    );

    reissue::warn_of_unnamed_streams(&root.table("streams"), &reissue, secrets.strictness);
    source_tables::compare_sessions(&root.table("accounts"), &accounts, &jwt);
    let authorize = authorize_hook::authorize(&root.table("authorize"));
    let rules = &routes.block;
    let closed = authorize_hook::closed(authorize.as_ref(), &accounts, &streams, &upstream, rules);
    routes.block.extend(closed);

    server::refuse_overlaps(root, &server, &admin);
    upstream::refuse_loops(&root.table("upstream"), &upstream, &server, &admin);
    upstream::warn_of_affinity(&root.table("upstream"), &upstream, &server);
    server::refuse_owned_health_path(&root.table("server"), &server, &routes);

    let config = Config {
        server,
        admin,
        decision,
        upstream,
        agora,
        routes,
        cors,
        token,
        cookie,
        jwt,
        mongodb,
        accounts,
        streams,
        reissue,
        authorize,
        policy: policy(&root.table("policy")),
        rate_limit,
        redis: redis::redis(&root.table("redis"), secrets),
        revocation: revocation(&root.table("revocation")),
        sessions: SessionsConfig {
            max: root.table("sessions").number("max", TABLE_SIZES, 1_000_000),
        },
        state_directory: state_directory(&root.table("state"), secrets),
        log: log(&root.table("log"), secrets),
    };
    timeouts::compare(root, &config);
    config
}

fn decision(table: &RawTable<'_>) -> DecisionConfig {
    let decision = DecisionConfig {
        mode: table.choice(
            "mode",
            &DecisionMode::ALL.map(|mode| (mode.as_str(), mode)),
            DecisionMode::Enforce,
        ),
        timeout: table.duration("timeout", POSITIVE_DURATION, seconds(3)),
        enforce_percent: table.number("enforce_percent", 0..=100, 100),
        drain_holders: table.boolean("drain_holders", true),
        mode_ok_until: mode_ok_until(table),
    };
    let (mode, percent) = (table.item("mode"), table.item("enforce_percent"));
    let enforces_all = decision.is_enforcing() && decision.enforce_percent == 100;
    if let Some(item) = mode.or(percent)
        && !enforces_all
        && decision.drain_holders
    {
        item.note(
            "publishers who hold tokens given here go on renewing them here (decision.drain_holders): \
             renewd_draining_publishers says how many",
        );
    }
    decision
}

/// A day, or a time of day in UTC (RFC 3339), in Unix seconds. `""` is none.
fn mode_ok_until(table: &RawTable<'_>) -> Option<u64> {
    let item = table.item("mode_ok_until")?;
    let text = item.text().filter(|text| !text.is_empty())?;
    let day = format!("{text}T00:00:00Z");
    let time = humantime::parse_rfc3339(text).or_else(|_| humantime::parse_rfc3339(&day));
    let since_epoch = time
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    if since_epoch.is_none() {
        item.error(
            "not a day or a time",
            "write \"2026-12-24\" or \"2026-12-24T18:00:00Z\"",
        );
    }
    since_epoch.map(|since| since.as_secs())
}

fn revocation(table: &RawTable<'_>) -> RevocationConfig {
    RevocationConfig {
        max_stale: table.duration("max_stale", POSITIVE_DURATION, seconds(300)),
        on_stale: table.choice(
            "on_stale",
            &OnStale::ALL.map(|choice| (choice.as_str(), choice)),
            OnStale::Serve,
        ),
    }
}

fn policy(table: &RawTable<'_>) -> PolicyConfig {
    PolicyConfig {
        max_streams_per_publisher: table.number(
            "max_streams_per_publisher",
            0..=u64::from(u32::MAX),
            0,
        ),
        max_session: tiers::max_session(table).unwrap_or_default(),
        bind_uid: table.boolean("bind_uid", true),
    }
}

fn state_directory(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Option<PathBuf> {
    let text = table.text("directory", "/var/lib/renewd");
    if text.is_empty() {
        if let Some(item) = table.item("directory") {
            item.warning(
                "without a directory, sessions are lost in a restart",
                "name a directory that the daemon's user may write",
            );
        }
        return None;
    }
    Some(secrets.resolve(&text))
}

const LOG_FORMATS: [(&str, LogFormat); 4] = [
    ("auto", LogFormat::Auto),
    ("logfmt", LogFormat::Logfmt),
    ("json", LogFormat::Json),
    ("pretty", LogFormat::Pretty),
];

/// `log.format` of a text that may be wrong everywhere else; the default where it can't be read.
pub(super) fn log_format(text: &str) -> LogFormat {
    let written = raw::text_at(text, "log", "format");
    let found = LOG_FORMATS
        .iter()
        .find(|(name, _)| Some(*name) == written.as_deref());
    found.map_or(LogFormat::Auto, |(_, format)| *format)
}

fn log(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Log {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    Log {
        format: table.choice("format", &LOG_FORMATS, LogFormat::Auto),
        level: table.choice("level", &levels, LogLevel::Info),
        access: table.boolean("access", false),
        audit: audit(table, secrets),
    }
}

/// Reports an audit file that the daemon couldn't open. Only `check` does this, since the daemon opens the file at
/// its start.
fn check_audit_file(item: &RawItem<'_>, path: &Path, environment: &dyn Environment) {
    let directory = path.parent().unwrap_or(path);
    if environment.is_directory(path) == Some(true) {
        item.error(
            format!("{} is a directory", path.display()),
            "write \"file:PATH\" with the name of a file in it",
        );
    } else if environment.is_directory(directory) == Some(false) {
        let missing = format!("there is no directory {}", directory.display());
        if directory == Path::new(LOGS_DIRECTORY) {
            item.note(format!("not checked: {missing}; the unit makes it"));
        } else {
            item.error(
                missing,
                format!("create it for the daemon's user, or use {LOGS_DIRECTORY}"),
            );
        }
    }
}

fn audit(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> AuditSink {
    let Some(item) = table.item("audit") else {
        return AuditSink::Stderr;
    };
    match item.text() {
        Some("off") => return AuditSink::Off,
        None | Some("stderr") => {}
        Some(text) => match text.strip_prefix("file:") {
            Some(path) if !path.is_empty() => {
                let path = secrets.resolve(path);
                if secrets.strictness == Strictness::Check {
                    check_audit_file(&item, &path, secrets.environment);
                }
                return AuditSink::File(path);
            }
            _ => item.error(
                "not a place for audit events",
                "write \"off\", \"stderr\" or \"file:PATH\"",
            ),
        },
    }
    AuditSink::Stderr
}
