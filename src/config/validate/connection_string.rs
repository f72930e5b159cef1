//! A MongoDB connection string as the Node app has it: the part that the driver takes, and the problem with the rest.
//!
//! Keeps true: what is kept makes a client later; a finding quotes names of options, and of values only numbers: a
//! string holds a password, and one that isn't encoded may stand anywhere in it.
//! Must not know: where the string came from, what the files that it names hold.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mongodb::options::{ClientOptions, ConnectionString};

use super::connection_options::{OptionMeaning, RENAMED, TAKEN, meaning};

/// A string that the driver takes.
#[derive(Debug)]
pub(super) struct AcceptedString {
    /// For the driver.
    pub(super) text: String,
    /// Names of options that were left out.
    pub(super) dropped: Vec<String>,
    /// The database that it names.
    pub(super) database: Option<String>,
    /// Files that the driver will read, each with its option's name.
    pub(super) files: Vec<(&'static str, PathBuf)>,
}

/// The problem and how to correct it; neither holds a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConnectionStringError {
    pub(super) message: String,
    pub(super) hint: String,
}

fn refusal<T>(
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Result<T, ConnectionStringError> {
    Err(ConnectionStringError {
        message: message.into(),
        hint: hint.into(),
    })
}

const ENCODE: &str = "percent-encode what stands for itself in a user name or password, as encodeURIComponent does: `@` is %40, `/` is %2F, `#` is %23, `%` is %25";

/// Options with a file: relative paths start elsewhere than the process does.
const FILES: [&str; 2] = ["tlsCAFile", "tlsCertificateKeyFile"];

/// Reads a string; `resolve` makes a path in it absolute.
pub(super) fn read(
    text: &str,
    resolve: impl Fn(&str) -> PathBuf,
) -> Result<AcceptedString, ConnectionStringError> {
    let (address, query) = divide(text)?;
    let mut kept: Vec<Cow<'_, str>> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut dropped = Vec::new();
    let mut files = Vec::new();
    for option in options(query) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return refusal("one of its options has no name that could be one", ENCODE);
        }
        match meaning(name, value) {
            OptionMeaning::None => {
                dropped.push(name.to_owned());
                continue;
            }
            OptionMeaning::Unsupported { what, instead } => {
                return refusal(format!("this build has no {what} (`{name}`)"), instead);
            }
            OptionMeaning::Driver => {}
        }
        if names
            .iter()
            .any(|earlier| earlier.eq_ignore_ascii_case(name))
        {
            return refusal(format!("`{name}` is given twice"), "keep one of them");
        }
        names.push(name);
        if value.is_empty() && TAKEN.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return refusal(
                format!("`{name}` has no value"),
                format!("write {name}=VALUE, or leave it out"),
            );
        }
        let file = FILES.iter().find(|file| file.eq_ignore_ascii_case(name));
        kept.push(if let Some(file) = file {
            let path = resolve(&decoded(value));
            let encoded = encoded(&path.to_string_lossy());
            files.push((*file, path));
            format!("{name}={encoded}").into()
        } else if is_named(option, "authmechanism") {
            // Node's driver compares without case; mongodb 3.9 doesn't (`AuthMechanism::from_str`).
            format!("{name}={}", value.to_ascii_uppercase()).into()
        } else {
            option.into()
        });
    }
    let text = address.with(&kept);
    match taken(&text) {
        Ok(parsed) => Ok(AcceptedString {
            text,
            dropped,
            database: parsed.default_database.filter(|name| !name.is_empty()),
            files,
        }),
        Err(said) => Err(address.explain(&kept, &said)),
    }
}

/// The address and the query of a string.
fn divide(text: &str) -> Result<(StringAddress<'_>, &str), ConnectionStringError> {
    let Some((scheme, rest)) = text
        .split_once("://")
        .filter(|(scheme, _)| ["mongodb", "mongodb+srv"].contains(scheme))
    else {
        return refusal(
            "not a MongoDB connection string: it begins with mongodb:// or mongodb+srv://",
            "write the connection string of the Node app",
        );
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let cut = |option: &str| option.contains('@') && !is_named(option, "appname");
    if !address.contains('@') && options(query).any(cut) {
        return refusal("its password holds a `?` that isn't encoded", ENCODE);
    }
    Ok((StringAddress { scheme, address }, query))
}

fn options(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|option| !option.is_empty())
}

fn is_named(option: &str, name: &str) -> bool {
    option
        .split('=')
        .next()
        .is_some_and(|found| found.eq_ignore_ascii_case(name))
}

/// Whether the driver takes the string, now and when it makes a client; else its words.
fn taken(text: &str) -> Result<ConnectionString, String> {
    let words = |error: &mongodb::error::Error| {
        let said = error.kind.to_string();
        let said = said.strip_prefix("An invalid argument was provided: ");
        said.map_or_else(|| error.kind.to_string(), str::to_owned)
    };
    let parsed = ConnectionString::parse(text).map_err(|error| words(&error))?;
    // mongodb 3.9 asks for DNS records in `ClientOptions::parse`, which a check can't wait for; here the rest is
    // checked as if there were none.
    let seeds = without_records(text);
    let seeds = ConnectionString::parse(seeds).map_err(|error| words(&error))?;
    let options = pin!(ClientOptions::parse(seeds).into_future());
    match options.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => Err(words(&error)),
        Poll::Ready(Ok(_)) | Poll::Pending => Ok(parsed),
    }
}

/// The same string with its host in place of what DNS has for it.
fn without_records(text: &str) -> Cow<'_, str> {
    let Some(rest) = text.strip_prefix("mongodb+srv://") else {
        return text.into();
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let kept = query.split('&').filter(|option| {
        !option.is_empty()
            && !is_named(option, "srvmaxhosts")
            && !is_named(option, "srvservicename")
    });
    let kept = kept.collect::<Vec<_>>().join("&");
    format!("mongodb://{address}?{kept}").into()
}

/// A string up to its options.
struct StringAddress<'t> {
    scheme: &'t str,
    /// User and password, hosts, database.
    address: &'t str,
}

impl StringAddress<'_> {
    fn with(&self, options: &[Cow<'_, str>]) -> String {
        let Self { scheme, address } = self;
        match options {
            [] => format!("{scheme}://{address}"),
            // mongodb 3.9 looks for options behind the slash (`ConnectionString::parse`).
            _ if !self.hosts().contains('/') => {
                format!("{scheme}://{address}/?{}", options.join("&"))
            }
            _ => format!("{scheme}://{address}?{}", options.join("&")),
        }
    }

    fn credentials(&self) -> Option<&str> {
        self.address
            .rsplit_once('@')
            .map(|(credentials, _)| credentials)
    }

    fn has_a_port_without_digits(&self) -> bool {
        let mut hosts = self.hosts().split(',');
        hosts.any(|host| {
            let port = host.rsplit_once(':').map_or("", |(_, port)| port);
            // After the slash stands the database's name, or more of the password.
            let port = port.split('/').next().unwrap_or_default();
            !port.bytes().all(|byte| byte.is_ascii_digit())
        })
    }

    fn hosts(&self) -> &str {
        let at = self.address.rsplit_once('@');
        at.map_or(self.address, |(_, hosts)| hosts)
    }

    /// The same address with a user and password that are no secret.
    fn disguised(&self) -> String {
        let credentials = match self.credentials() {
            None => "",
            Some(credentials) if credentials.contains(':') => "user:password@",
            Some(_) => "user@",
        };
        [credentials, self.hosts()].concat()
    }

    /// Why the driver doesn't take these options, when it `said` that it doesn't take them all.
    fn explain(&self, options: &[Cow<'_, str>], said: &str) -> ConnectionStringError {
        if let Err(said) = taken(&self.with(&[])) {
            return self.explain_address(&said);
        }
        let disguised = self.disguised();
        let there = StringAddress {
            scheme: self.scheme,
            address: &disguised,
        };
        let alone = |option: &Cow<'_, str>| there.with(std::slice::from_ref(option));
        let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
        for option in options {
            if let Some(refusal) = explain_option(option) {
                return refusal;
            }
            if let Err(said) = taken(&alone(option)) {
                return ConnectionStringError {
                    message: format!(
                        "`{}` and what stands before the options contradict each other{}",
                        name(option),
                        words(&said, option)
                    ),
                    hint: "keep one of them".to_owned(),
                };
            }
        }
        for (index, one) in options.iter().enumerate() {
            for other in options.iter().skip(index + 1) {
                let pair = [one.clone(), other.clone()];
                if taken(&there.with(&pair)).is_err() {
                    return ConnectionStringError {
                        message: format!(
                            "`{}` and `{}` contradict each other",
                            name(one),
                            name(other)
                        ),
                        hint: "keep one of them".to_owned(),
                    };
                }
            }
        }
        ConnectionStringError {
            message: "not a connection string that the driver takes".to_owned(),
            hint: if self.leaks(said) {
                "write the connection string of the Node app".to_owned()
            } else {
                format!("the driver says: {said}")
            },
        }
    }

    fn explain_address(&self, said: &str) -> ConnectionStringError {
        let encode = ["URL encoded", "unescaped", "authentication was requested"];
        let hint = if encode.iter().any(|words| said.contains(words)) {
            ENCODE
        } else {
            "write the connection string of the Node app"
        };
        let mut message = "not a connection string that the driver takes".to_owned();
        if !self.leaks(said) {
            message = format!("{message}: {said}");
        }
        ConnectionStringError {
            message,
            hint: hint.to_owned(),
        }
    }

    /// Whether the driver's words quote a part of the user's name or password.
    fn leaks(&self, said: &str) -> bool {
        let quoted = |part: &str| !part.is_empty() && said.contains(part);
        match self.credentials() {
            Some(credentials) => credentials.split([':', '@']).any(quoted),
            // Without an `@` a password may stand where mongodb 3.9 looks for a port (`ServerAddress::parse`).
            None => self.has_a_port_without_digits(),
        }
    }
}

/// The problem with an option by itself.
fn explain_option(option: &str) -> Option<ConnectionStringError> {
    // Some mechanisms need a user, some a password, some refuse one.
    let somewhere = ["", "user@", "user:password@"]
        .into_iter()
        .map(|user| taken(&format!("mongodb://{user}localhost/?{option}")));
    let said = somewhere.map(Result::err).collect::<Option<Vec<_>>>()?;
    // With the scheme that asks DNS, two more options mean something.
    if taken(&format!("mongodb+srv://a.example.net/?{option}")).is_ok() {
        return None;
    }
    let said = said.into_iter().next()?;
    let (name, _) = option.split_once('=').unwrap_or((option, ""));
    if !TAKEN.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        let renamed = RENAMED
            .iter()
            .find(|(old, _)| old.eq_ignore_ascii_case(name));
        let near = TAKEN
            .iter()
            .map(|known| {
                let distance = strsim::damerau_levenshtein(
                    &known.to_ascii_lowercase(),
                    &name.to_ascii_lowercase(),
                );
                (distance, known)
            })
            .min()
            .filter(|(distance, _)| *distance <= 2);
        let hint = match (renamed, near) {
            (Some((_, new)), _) => format!("write {new}"),
            (None, Some((_, known))) => format!("did you mean `{known}`?"),
            (None, None) => "leave it out, or see how the backend's driver spells it".to_owned(),
        };
        return Some(ConnectionStringError {
            message: format!("`{name}` is no option of a connection string"),
            hint,
        });
    }
    Some(ConnectionStringError {
        message: format!(
            "`{name}` has a value that the driver doesn't take{}",
            words(&said, option)
        ),
        hint: "mend the value, or leave the option out".to_owned(),
    })
}

/// The driver's words after a colon, where they can't quote a secret: one that was cut at a `?` may look like a value.
fn words(said: &str, option: &str) -> String {
    let (_, value) = option.split_once('=').unwrap_or((option, ""));
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) || text == "true";
    if is_plain(value) || !(said.contains(value) || said.contains(decoded(value).as_str())) {
        format!(": {said}")
    } else {
        String::new()
    }
}

/// Percent-decoded, as mongodb 3.9 does (`parse_options` of `ConnectionStringParts`).
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let digits = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(digits.unwrap_or(*first));
        rest = match digits {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A path percent-encoded as the value of an option.
fn encoded(path: &str) -> String {
    path.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn kept(text: &str) -> AcceptedString {
        let resolve = |path: &str| Path::new("/etc/renewd").join(path);
        read(text, resolve).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
    }

    fn refused(text: &str) -> ConnectionStringError {
        read(text, |path: &str| path.into()).expect_err(text)
    }

    #[test]
    fn what_only_node_takes_is_left_out() {
        for (written, text, dropped) in [
            ("mongodb://h/db", "mongodb://h/db", 0),
            (
                "mongodb://h/db?useNewUrlParser=true&useUnifiedTopology=true",
                "mongodb://h/db",
                2,
            ),
            (
                "mongodb+srv://u:p@h/db?retryWrites=true&w=majority&socketTimeoutMS=45000&family=4",
                "mongodb+srv://u:p@h/db?retryWrites=true&w=majority",
                2,
            ),
            (
                "mongodb://h/?authMechanism=DEFAULT&tlsInsecure=true&j=true",
                "mongodb://h/?tlsInsecure=true",
                2,
            ),
            (
                "mongodb://h/db?&w=majority&",
                "mongodb://h/db?w=majority",
                0,
            ),
            ("mongodb://h/db?maxPoolSize=0", "mongodb://h/db", 1),
        ] {
            let kept = kept(written);
            assert_eq!((kept.text.as_str(), kept.dropped.len()), (text, dropped));
        }
    }

    #[test]
    fn a_refusal_shows_no_password() {
        for text in [
            "mongodb://user:hunter2@host:notaport/db",
            "mongodb://user:hunter2@/db",
            "mongodb://user:hunter2/x",
            "mongodb://user:hunter2/x%40host/db",
            "mongodb://user:hunter2?x",
            "mongodb://user:hunter2@host/db?tls=perhaps",
            "mongodb://user:hunter2@host/db?directConnection=true&loadBalanced=true",
            "postgres://user:hunter2@host/db",
            "mongodb://user:pass?hunter2@host/db",
            "mongodb://user:pass?tls=hunter2@host/db",
            "mongodb://user:pass?hunter2&a@host/db",
            "mongodb://user:100%hunter2@host/db",
            "mongodb://user:hunter2@x@host/db?tls=perhaps",
            "mongodb://host/db?tls=hunter2",
            "mongodb://host/db?authMechanism=hunter2",
            "mongodb://host/db?tlsCertificateKeyFilePassword=hunter2",
        ] {
            let refusal = refused(text);
            assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
        }
    }

    #[test]
    fn files_start_at_the_given_directory_and_are_named() {
        let relative = kept("mongodb://h/db?tlsCAFile=ca%20x.pem&tls=true");
        assert_eq!(
            relative.text,
            "mongodb://h/db?tlsCAFile=/etc/renewd/ca%20x.pem&tls=true"
        );
        assert_eq!(
            relative.files,
            [("tlsCAFile", PathBuf::from("/etc/renewd/ca x.pem"))]
        );
        let absolute = kept("mongodb://h/db?tlsCertificateKeyFile=/etc/ssl/client.pem");
        assert_eq!(
            absolute.text,
            "mongodb://h/db?tlsCertificateKeyFile=/etc/ssl/client.pem"
        );
    }

    #[test]
    fn a_contradiction_says_which_two() {
        for (text, one, other) in [
            (
                "mongodb://u:p@h/?w=1&tlsInsecure=true&tlsAllowInvalidCertificates=true",
                "`tlsInsecure`",
                "`tlsAllowInvalidCertificates`",
            ),
            ("mongodb://h/?ssl=true&tls=false", "`ssl`", "`tls`"),
            (
                "mongodb://h/?loadBalanced=true&appName=a&replicaSet=r",
                "`loadBalanced`",
                "`replicaSet`",
            ),
            (
                "mongodb://a,b,c/live?directConnection=true",
                "`directConnection`",
                "what stands before the options",
            ),
            (
                "mongodb+srv://u:p@a.b.example/live?directConnection=true",
                "`directConnection`",
                "what stands before the options",
            ),
            (
                "mongodb://u:p@h/?authMechanism=MONGODB-X509",
                "`authMechanism`",
                "what stands before the options",
            ),
        ] {
            let message = refused(text).message;
            assert!(message.contains(&format!("{one} and {other}")), "{message}");
        }
    }

    #[test]
    fn unsupported_is_not_misspelt_and_misspelt_not_unsupported() {
        for (option, message, hint) in [
            ("tlsAllowInvalidHostnames=true", "this build has no", "name"),
            ("proxyHost=127.0.0.1", "this build has no proxy", "tunnel"),
            ("authMechanism=GSSAPI", "this build has no", "SCRAM"),
            ("foo=bar", "`foo` is no option", "leave it out"),
            (
                "readPreferenc=primary",
                "`readPreferenc` is no option",
                "`readPreference`",
            ),
            (
                "sslValidate=false",
                "`sslValidate` is no option",
                "tlsAllowInvalidCertificates",
            ),
            ("retryWrites", "`retryWrites` has no value", "VALUE"),
            (
                "authSource=a&authSource=a",
                "`authSource` is given twice",
                "one",
            ),
            (
                "heartbeatFrequencyMS=100",
                "`heartbeatFrequencyMS` has a value that the driver doesn't take: ",
                "mend",
            ),
            ("maxConnecting=0", "`maxConnecting` has a value", "mend"),
        ] {
            let refusal = refused(&format!("mongodb://u:p@h/live?{option}"));
            assert!(refusal.message.contains(message), "{refusal:?}");
            assert!(refusal.hint.contains(hint), "{refusal:?}");
        }
    }
}
