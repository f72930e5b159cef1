//! `renewd token mint|inspect`: offline, with a certificate from a file.
//!
//! Keeps true: no wildcard token is minted by mistake; no certificate is printed.
//! Must not know: the configuration, the network.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};

use super::USAGE;
use crate::agora::TokenFormat;
use crate::agora::access_token2::AccessToken2;
use crate::agora::charset::{self, NameError};
use crate::agora::inspect::{Expected, inspect};
use crate::agora::service::AgoraService;
use crate::agora::{self, BuildError, LONGEST_LIFETIME, Signer, User, access_token, is_hex_id};
use crate::config::secret::Secret;
use crate::terms::clock::{Clock, Entropy, EntropyError};
use crate::terms::role::Role;

/// Creates and inspects Agora tokens, offline.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it on stdout, without any other output.
    Mint(MintCommand),
    /// Print what a token allows, for whom and until when, and whether Agora would accept it, as JSON.
    ///
    /// The exit status is 1 if Agora would refuse the token for a reason that could be checked, otherwise 0.
    /// `accepted` is null if no such reason was found but the signature was not checked.
    Inspect(Inspect),
}

/// The most that is read: more than any page or log line with a token in it.
const LONGEST_INPUT: u64 = 1 << 20;

const MINT_EXAMPLE: &str = "Example: renewd token mint --app-id 970ca35de60c44645bbae8a215061b33 \
--certificate-file certificate --channel live_show --uid 77 --role subscriber --lifetime 1h";

const INSPECT_NOTES: &str = "Agora refuses an expired token with error 109. It refuses a token with error 110 if the \
token is for another App ID, channel or user, or is signed with another certificate. Only what is given here is \
checked. To check the signature of a 006 token, give the channel and uid it was made for, or the account that logs in \
to RTM.";

/// `token mint`.
#[derive(Args, Clone, Debug)]
#[command(after_help = MINT_EXAMPLE)]
pub struct MintCommand {
    /// The project's App ID: 32 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    app_id: String,
    /// A file with the project's App Certificate: 32 hexadecimal digits.
    #[arg(long, value_name = "F")]
    certificate_file: PathBuf,
    /// The channel to join.
    #[arg(long, value_name = "C")]
    channel: String,
    /// A numeric uid. Anyone may use a token for uid 0.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "account",
        required_unless_present = "account"
    )]
    uid: Option<u32>,
    /// A string user account.
    #[arg(long, value_name = "A")]
    account: Option<String>,
    /// publisher (or broadcaster, host, 1) or subscriber (or audience, viewer, 2).
    #[arg(long, value_name = "R", value_parser = role)]
    role: Role,
    /// How long the token is valid, from 1m to 24h.
    #[arg(long, value_name = "1h", value_parser = humantime::parse_duration)]
    lifetime: Duration,
    /// How long its privileges are valid, from 1s to 24h [default: the token's lifetime].
    #[arg(long, value_name = "1h", value_parser = humantime::parse_duration)]
    privilege_lifetime: Option<Duration>,
    /// The services that the token is for, for the same uid or account. rtm and chat need --format 007.
    #[arg(
        long,
        value_name = "rtc,rtm",
        value_enum,
        value_delimiter = ',',
        default_value = "rtc"
    )]
    services: Vec<ServiceName>,
    /// The token format: AccessToken2 (007) or the legacy AccessToken (006).
    #[arg(long, value_name = "006|007", value_parser = format, default_value = "007")]
    format: TokenFormat,
    /// Issue time in Unix seconds [default: now].
    #[arg(long, value_name = "UNIX")]
    issued_at: Option<u32>,
    /// The token's salt: equal arguments with equal salts give equal tokens [default: random].
    #[arg(long, value_name = "N")]
    salt: Option<u32>,
}

/// `token inspect`.
#[derive(Args, Clone, Debug)]
#[command(after_help = INSPECT_NOTES)]
pub struct Inspect {
    /// The token, or - to read it from standard input, so that it does not appear in the process list.
    token: String,
    /// A file with the project's App Certificate, to check the signature.
    #[arg(long, value_name = "F")]
    certificate_file: Option<PathBuf>,
    /// The App ID that the client uses.
    #[arg(long, value_name = "HEX")]
    app_id: Option<String>,
    /// The channel that the client joins. To check a 006 signature, give it together with the uid.
    #[arg(long, value_name = "C")]
    channel: Option<String>,
    /// The uid that the client joins with.
    #[arg(long, value_name = "N", conflicts_with = "account")]
    uid: Option<u32>,
    /// The user account that the client joins with, or logs in to RTM with.
    #[arg(long, value_name = "A")]
    account: Option<String>,
    /// When the client used the token: Unix seconds, or a time such as 2026-11-22T23:30:39Z [default: now].
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<u64>,
}

/// A service that `--services` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum ServiceName {
    /// Audio and video.
    Rtc,
    /// Signaling.
    Rtm,
    /// Chat.
    Chat,
}

/// Why a token command gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("can't read the certificate file {}: {source}", path.display())]
    CertificateFile {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not 32 hexadecimal digits.
    #[error("the certificate file {} must hold 32 hexadecimal digits and nothing else", path.display())]
    Certificate {
        /// As given.
        path: PathBuf,
    },
    /// The name would make a wildcard token, or is empty.
    #[error("--{flag} {error}")]
    Name {
        /// Which flag.
        flag: &'static str,
        /// Why.
        error: NameError,
    },
    /// Out of range.
    #[error("--{flag} must be whole seconds from {least} to 24h")]
    Lifetime {
        /// Which flag.
        flag: &'static str,
        /// The shortest allowed.
        least: &'static str,
    },
    /// Agora ends a privilege with its token.
    #[error("--privilege-lifetime must be at most --lifetime: a privilege ends with its token")]
    PrivilegeLifetime,
    /// A 006 token can hold RTC alone.
    #[error("--services: a 006 token holds rtc alone; use --format 007")]
    Services,
    /// A token for uid 0 logs no user in.
    #[error("--services: rtm and chat need a --uid other than 0 or an --account")]
    NobodyToLogIn,
    /// The clock is set beyond 2106.
    #[error("the system's time doesn't fit into a token; give --issued-at")]
    Time,
    /// The builder refused.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No salt.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The token can't be read from standard input.
    #[error("can't read the token: {0}")]
    Token(io::Error),
    /// The answer can't be written.
    #[error("can't write: {0}")]
    Write(#[from] io::Error),
}

impl TokenError {
    /// 64 for an argument that is wrong by itself, else 1.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Name { .. }
            | Self::Lifetime { .. }
            | Self::PrivilegeLifetime
            | Self::Services
            | Self::NobodyToLogIn
            | Self::Build(BuildError::AppId) => USAGE,
            Self::CertificateFile { .. }
            | Self::Certificate { .. }
            | Self::Time
            | Self::Build(_)
            | Self::Entropy(_)
            | Self::Token(_)
            | Self::Write(_) => 1,
        }
    }
}

/// Runs a token command: the answer goes to `out`, warnings to `warnings`. Gives the exit status, 0 or 1.
pub fn run(
    command: TokenCommand,
    clock: &Clock,
    entropy: Entropy,
    input: &mut impl Read,
    out: &mut impl Write,
    warnings: &mut impl Write,
) -> Result<u8, TokenError> {
    match command {
        TokenCommand::Mint(mint) => {
            let token = mint.token(clock, entropy, warnings)?;
            writeln!(out, "{token}")?;
            Ok(0)
        }
        TokenCommand::Inspect(inspect) => inspect.report(clock, input, out),
    }
}

impl MintCommand {
    fn token(
        &self,
        clock: &Clock,
        entropy: Entropy,
        warnings: &mut impl Write,
    ) -> Result<String, TokenError> {
        let certificate = read_certificate(&self.certificate_file)?;
        let signer = Signer::new(&self.app_id, &certificate)?;
        let user = user(self.uid, self.account.as_deref()).unwrap_or(User::Uid(0));
        name("channel", charset::channel_name(&self.channel), warnings)?;
        match user {
            User::Account(account) => name("account", charset::user_account(account), warnings)?,
            User::Uid(0) => writeln!(warnings, "warning: anyone may use a token for uid 0")?,
            User::Uid(_) => {}
        }
        let lifetime = seconds("lifetime", self.lifetime, 60, "1m")?;
        let privilege_lifetime = match self.privilege_lifetime {
            Some(duration) => seconds("privilege-lifetime", duration, 1, "1s")?,
            None => lifetime,
        };
        if privilege_lifetime > lifetime {
            return Err(TokenError::PrivilegeLifetime);
        }
        let issued_at = match self.issued_at {
            Some(time) => time,
            None => u32::try_from(clock.unix_seconds()).map_err(|_| TokenError::Time)?,
        };
        let salt = match self.salt {
            Some(salt) => salt,
            None => entropy.salt()?,
        };
        match self.format {
            TokenFormat::V007 => {
                let token = AccessToken2 {
                    issued_at,
                    expire: lifetime,
                    salt,
                    services: self.services_for(user, lifetime, privilege_lifetime)?,
                };
                Ok(token.build(&signer)?)
            }
            TokenFormat::V006 if self.services != [ServiceName::Rtc] => Err(TokenError::Services),
            TokenFormat::V006 => {
                let expiry = issued_at.saturating_add(privilege_lifetime);
                let privileges = agora::rtc_privileges(self.role);
                let token = access_token::AccessToken {
                    channel: self.channel.clone(),
                    uid: user.to_text(),
                    salt,
                    expires_at: issued_at.saturating_add(LONGEST_LIFETIME),
                    privileges: privileges.iter().map(|number| (*number, expiry)).collect(),
                };
                Ok(token.build(&signer)?)
            }
        }
    }

    fn services_for(
        &self,
        user: User<&str>,
        lifetime: u32,
        privilege_lifetime: u32,
    ) -> Result<Vec<AgoraService>, TokenError> {
        let mut names = self.services.clone();
        names.sort_unstable();
        names.dedup();
        if user == User::Uid(0) && names != [ServiceName::Rtc] {
            return Err(TokenError::NobodyToLogIn);
        }
        let services = names.into_iter().map(|name| match name {
            ServiceName::Rtc => {
                AgoraService::rtc(&self.channel, user, self.role, privilege_lifetime)
            }
            ServiceName::Rtm => AgoraService::rtm(&user.to_text(), lifetime),
            ServiceName::Chat => AgoraService::chat_user(&user.to_text(), lifetime),
        });
        Ok(services.collect())
    }
}

impl Inspect {
    fn report(
        &self,
        clock: &Clock,
        input: &mut impl Read,
        out: &mut impl Write,
    ) -> Result<u8, TokenError> {
        let mut read = String::new();
        let token = if self.token == "-" {
            let limited = &mut input.take(LONGEST_INPUT);
            limited
                .read_to_string(&mut read)
                .map_err(TokenError::Token)?;
            &read
        } else {
            &self.token
        };
        let certificate = match &self.certificate_file {
            Some(path) => Some(read_certificate(path)?),
            None => None,
        };
        let report = inspect(
            token,
            &Expected {
                now: self.at.unwrap_or_else(|| clock.unix_seconds()),
                certificate: certificate.as_ref(),
                app_id: self.app_id.as_deref(),
                channel: self.channel.as_deref(),
                user: user(self.uid, self.account.as_deref()),
            },
        );
        serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
        Ok(u8::from(report.accepted == Some(false)))
    }
}

fn user(uid: Option<u32>, account: Option<&str>) -> Option<User<&str>> {
    account.map(User::Account).or(uid.map(User::Uid))
}

/// Refuses wildcards; warns of names that Agora's SDK won't join with, since its builders make tokens for them all
/// the same.
fn name(
    flag: &'static str,
    checked: Result<(), NameError>,
    warnings: &mut impl Write,
) -> Result<(), TokenError> {
    match checked {
        Ok(()) => Ok(()),
        Err(error @ (NameError::Empty | NameError::Wildcard)) => {
            Err(TokenError::Name { flag, error })
        }
        Err(error) => Ok(writeln!(warnings, "warning: --{flag} {error}")?),
    }
}

fn seconds(
    flag: &'static str,
    duration: Duration,
    shortest: u32,
    least: &'static str,
) -> Result<u32, TokenError> {
    u32::try_from(duration.as_secs())
        .ok()
        .filter(|seconds| (shortest..=LONGEST_LIFETIME).contains(seconds))
        .filter(|_| duration.subsec_nanos() == 0)
        .ok_or(TokenError::Lifetime { flag, least })
}

fn read_certificate(path: &Path) -> Result<Secret, TokenError> {
    let written = std::fs::read(path).map(Secret::new);
    let written = written.map_err(|source| TokenError::CertificateFile {
        path: path.to_owned(),
        source,
    })?;
    let trimmed = written.expose().trim_ascii();
    if !is_hex_id(trimmed) {
        return Err(TokenError::Certificate {
            path: path.to_owned(),
        });
    }
    Ok(Secret::new(trimmed.to_vec()))
}

/// Unix seconds, or a time as RFC 3339 has it.
fn time(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    humantime::parse_rfc3339_weak(text)
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map(|since| since.as_secs())
        .ok_or_else(|| "neither Unix seconds nor a time such as 2026-11-22T23:30:39Z".to_owned())
}

fn role(name: &str) -> Result<Role, String> {
    match name {
        "publisher" | "broadcaster" | "host" | "1" => Ok(Role::Publisher),
        "subscriber" | "audience" | "viewer" | "2" => Ok(Role::Subscriber),
        _ => Err("neither publisher nor subscriber".to_owned()),
    }
}

fn format(name: &str) -> Result<TokenFormat, String> {
    match name {
        "007" => Ok(TokenFormat::V007),
        "006" => Ok(TokenFormat::V006),
        _ => Err("neither 006 nor 007".to_owned()),
    }
}
