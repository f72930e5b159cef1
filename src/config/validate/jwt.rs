//! `[auth.jwt]`: the keys and rules that JWTs are verified by.
//!
//! Keeps true: at least one key, each usable under the allow-list; no secret is empty.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::source_tables::url_of;
use super::{ANY_DURATION, seconds};
use crate::config::credentials::{SecretLookup, SecretReader};
use crate::config::diagnostic::quoted;
use crate::config::model::{Jwt, JwtAlgorithm, JwtKey, KeyMaterial};
use crate::config::raw::{RawItem, RawTable};
use crate::config::secret::Secret;
use crate::http::url::Url;
use crate::pki::public_key::{BadKey, PublicKey};

/// Node's `Buffer.from(secret, "base64")` takes padding or none, and drops the bits after the last byte.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Below this a secret can be guessed from one token.
const SHORT_SECRET: usize = 16;

const NO_KEY_HINT: &str =
    "secret = \"env:JWT_SECRET\", secret_file, public_key_file, jwks_url or keys = [...]";
const PUBLIC_HINT: &str =
    "name a file with -----BEGIN PUBLIC KEY-----, RSA PUBLIC KEY or CERTIFICATE in it";

pub(super) fn jwt(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Jwt {
    let algorithms = algorithms(table);
    let jwks_url = jwks_url(table, &algorithms);
    let keys = keys(table, &algorithms, secrets);
    let subject_claim = table.text("subject_claim", "sub");
    if let Some(item) = table.item("subject_claim")
        && subject_claim.is_empty()
    {
        item.error(
            "no claim is named",
            "write the claim that names the user, such as \"sub\"",
        );
    }
    Jwt {
        algorithms,
        keys,
        jwks_url,
        issuer: table.text("issuer", ""),
        audience: table.text("audience", ""),
        leeway: table.duration("leeway", ANY_DURATION, seconds(0)),
        require_exp: table.boolean("require_exp", true),
        key_grace: table.duration("key_grace", ANY_DURATION, seconds(600)),
        subject_claim,
        session_claim: table.text("session_claim", ""),
    }
}

/// `auth.cookie`: a cookie's name (RFC 6265 §4.1.1); `""` is none.
pub(super) fn cookie(table: &RawTable<'_>) -> Option<String> {
    let item = table.item("cookie")?;
    let name = item.text()?;
    if !is_cookie_name(name) {
        item.error(
            "not a cookie's name",
            "write its name alone, such as \"token\"",
        );
    }
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether it is a name by RFC 6265 §4.1.1, or empty.
pub(super) fn is_cookie_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    name.bytes().all(is_token)
}

/// The URL must be https or on this machine: an attacker could replace keys that travel in clear text.
fn jwks_url(table: &RawTable<'_>, allowed: &[JwtAlgorithm]) -> Option<Url> {
    let item = table.item("jwks_url")?;
    let url = url_of(&item, "https://login.example.com/.well-known/jwks.json")?;
    if !url.is_secure() && !url.is_loopback() {
        item.error(
            "over http:// an attacker on the network could put in a key",
            "write an https:// URL; http:// is for this machine alone",
        );
    }
    if allowed.iter().all(|one| one.key_kind().is_none()) {
        item.error(
            "a key set has no shared secrets, and auth.jwt.algorithms allows nothing else",
            "algorithms = [\"RS256\"], or what signs your JWTs",
        );
    }
    Some(url)
}

fn algorithms(table: &RawTable<'_>) -> Vec<JwtAlgorithm> {
    let Some(item) = table.item("algorithms") else {
        return vec![JwtAlgorithm::Hs256];
    };
    // After an error in the list all algorithms count as allowed, so that no other error follows from it.
    let any = || JwtAlgorithm::NAMES.map(|(_, algorithm)| algorithm).to_vec();
    let Some(entries) = item.list() else {
        return any();
    };
    if entries.is_empty() {
        item.error(
            "nothing would be believed",
            "write [\"HS256\"], or what signs your JWTs",
        );
        return any();
    }
    let found: Vec<Option<JwtAlgorithm>> = entries.iter().map(algorithm).collect();
    let Some(mut algorithms) = found.into_iter().collect::<Option<Vec<_>>>() else {
        return any();
    };
    algorithms.dedup();
    algorithms
}

fn algorithm(item: &RawItem<'_>) -> Option<JwtAlgorithm> {
    let text = item.text()?;
    if text.eq_ignore_ascii_case("none") {
        item.error("unsigned JWTs are never believed", "remove it");
        return None;
    }
    item.choice(&JwtAlgorithm::NAMES)
}

fn keys(table: &RawTable<'_>, allowed: &[JwtAlgorithm], secrets: &SecretReader<'_>) -> Vec<JwtKey> {
    let list = table.find("keys");
    let encoding = secret_encoding(table, SecretEncoding::Text);
    let alone = material(table, encoding, secrets);
    match (alone, list) {
        (Alone::Absent, list) => {
            if list.is_none() && table.item("jwks_url").is_none() {
                table.missing("secret", NO_KEY_HINT);
            }
            if let Some(list) = list
                && list.list().is_some_and(|keys| keys.is_empty())
            {
                list.error(
                    "no key is listed",
                    "keys = [{ id = \"...\", algorithm = \"HS256\", secret = \"env:NAME\" }]",
                );
            }
            key_list(&table.tables("keys"), allowed, encoding, secrets)
        }
        (_, Some(list)) => {
            list.error(
                "a key is given beside it",
                "keep one of `secret`, `public_key_file` and `keys`; the list may hold several of both",
            );
            Vec::new()
        }
        (Alone::Refused, None) => Vec::new(),
        (Alone::Material(material, item), None) => {
            if !allowed.iter().any(|algorithm| material.takes(*algorithm)) {
                item.error(
                    format!(
                        "{} verifies none of auth.jwt.algorithms",
                        described(&material)
                    ),
                    format!("algorithms = [{}]", quoted(usual(&material))),
                );
            }
            vec![JwtKey {
                id: String::new(),
                algorithm: None,
                material,
            }]
        }
    }
}

/// One key's material as a table gives it.
enum Alone<'r> {
    Absent,
    Refused,
    Material(KeyMaterial, RawItem<'r>),
}

/// How the text of a shared secret stands for its bytes.
#[derive(Clone, Copy)]
enum SecretEncoding {
    /// The text's own bytes, as Node's `jsonwebtoken` takes a string.
    Text,
    /// Base64 in either alphabet (RFC 4648 §4 and §5), in one line or several.
    Base64,
}

fn secret_encoding(table: &RawTable<'_>, default: SecretEncoding) -> SecretEncoding {
    let encodings = [
        ("text", SecretEncoding::Text),
        ("base64", SecretEncoding::Base64),
    ];
    table.choice("secret_encoding", &encodings, default)
}

/// The bytes that a secret's text stands for. The error says where the text is wrong and shows none of it.
fn decoded(secret: Secret, encoding: SecretEncoding) -> Result<Secret, String> {
    let SecretEncoding::Base64 = encoding else {
        return Ok(secret);
    };
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
    let fits = |byte: &u8| is_base64(byte) || byte.is_ascii_whitespace();
    if let Some(position) = secret.expose().iter().position(|byte| !fits(byte)) {
        let position = position + 1;
        return Err(format!(
            "the secret is not base64: character {position} is none of its characters"
        ));
    }
    let mut text = Zeroizing::new(secret.expose().to_vec());
    text.retain(|byte| !byte.is_ascii_whitespace());
    for byte in text.iter_mut() {
        match byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        }
    }
    // The vector has its full length at once, since one that grows leaves parts of the secret behind.
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    match BASE64.decode_slice(&*text, &mut bytes) {
        Ok(0) => Err("the secret is base64 of nothing".to_owned()),
        Ok(length) => {
            bytes.truncate(length);
            Ok(Secret::new(std::mem::take(&mut *bytes)))
        }
        Err(_) => {
            Err("the secret is not base64: it is cut off, or goes on behind its padding".to_owned())
        }
    }
}

/// `secret`, `secret_file` or `public_key_file`.
fn material<'r>(
    table: &RawTable<'r>,
    encoding: SecretEncoding,
    secrets: &SecretReader<'_>,
) -> Alone<'r> {
    let secret = secrets.read(table, "secret");
    let file = table.item("public_key_file");
    match (secret, file) {
        (SecretLookup::Absent, None) => Alone::Absent,
        (SecretLookup::Absent, Some(item)) => match public_key(&item, secrets) {
            Some(key) => Alone::Material(KeyMaterial::Public(key), item),
            None => Alone::Refused,
        },
        (_, Some(item)) => {
            item.error(
                "`secret` is given too",
                "a key is shared or public: keep one of them, or list both under `keys`",
            );
            Alone::Refused
        }
        (SecretLookup::Unknown, None) => Alone::Refused,
        (SecretLookup::Secret(secret, item), None) => {
            let secret = match decoded(secret, encoding) {
                Ok(secret) => secret,
                Err(message) => {
                    item.error(
                        message,
                        "copy it whole, or set secret_encoding = \"text\" if the signer uses the text as it is",
                    );
                    return Alone::Refused;
                }
            };
            if PublicKey::from_pem(secret.expose()) != Err(BadKey::NotPem) {
                // A public key is no secret: an attacker could sign with it.
                item.error(
                    "this is a key in PEM, not a shared secret",
                    "name the file of the public key under `public_key_file`",
                );
                return Alone::Refused;
            }
            warn_if_short(&secret, &item);
            Alone::Material(KeyMaterial::Secret(secret), item)
        }
    }
}

fn public_key(item: &RawItem<'_>, secrets: &SecretReader<'_>) -> Option<PublicKey> {
    secrets.warn_of_writers(item);
    let pem = secrets.named_file(item)?;
    match PublicKey::from_pem(pem.expose()) {
        Ok(key) => Some(key),
        Err(error) => {
            let hint = match error {
                BadKey::Private => {
                    "only the signer needs it; openssl pkey -in FILE -pubout writes the public one"
                }
                BadKey::Length(_) => "sign with a key of 2048 bits or more",
                BadKey::PssOnly => {
                    "sign with an ordinary RSA key: PS256 and its like take those too"
                }
                BadKey::UnnamedCurve => {
                    "name it: openssl ec -pubin -in FILE -param_enc named_curve -out FILE.named"
                }
                BadKey::NotPem | BadKey::Kind | BadKey::Damaged => PUBLIC_HINT,
            };
            item.error(format!("the file holds {error}"), hint);
            None
        }
    }
}

fn described(material: &KeyMaterial) -> String {
    match material {
        KeyMaterial::Secret(_) => "a shared secret".to_owned(),
        KeyMaterial::Public(key) => format!("this {} key", key.kind().as_str()),
    }
}

/// The algorithm that most sign with, given this material.
fn usual(material: &KeyMaterial) -> &'static str {
    let takes = |(_, algorithm): &&(&'static str, JwtAlgorithm)| material.takes(*algorithm);
    JwtAlgorithm::NAMES
        .iter()
        .find(takes)
        .map_or("HS256", |(name, _)| *name)
}

fn key_list(
    tables: &[RawTable<'_>],
    allowed: &[JwtAlgorithm],
    encoding: SecretEncoding,
    secrets: &SecretReader<'_>,
) -> Vec<JwtKey> {
    let (mut keys, mut ids) = (Vec::new(), Vec::new());
    for table in tables {
        let id = table.text("id", "");
        if ids.contains(&id)
            && let Some(item) = table.item("id")
        {
            item.error(
                format!("a key before this is called {} too", quoted(&id)),
                "give each key an id of its own",
            );
        }
        keys.extend(key(table, id.clone(), allowed, encoding, secrets));
        if !id.is_empty() {
            ids.push(id);
        }
    }
    keys
}

fn key(
    table: &RawTable<'_>,
    id: String,
    allowed: &[JwtAlgorithm],
    encoding: SecretEncoding,
    secrets: &SecretReader<'_>,
) -> Option<JwtKey> {
    let encoding = secret_encoding(table, encoding);
    let material = match material(table, encoding, secrets) {
        Alone::Material(material, item) => Some((material, item)),
        Alone::Refused => None,
        Alone::Absent => {
            table.missing(
                "secret",
                "secret = \"env:NAME\", secret_file or public_key_file",
            );
            None
        }
    };
    let item = table.required("algorithm", "algorithm = \"HS256\": each key has its own")?;
    let algorithm = algorithm(&item)?;
    if !allowed.contains(&algorithm) {
        item.error(
            "not in auth.jwt.algorithms, so nothing it signs is believed",
            "add it to auth.jwt.algorithms",
        );
    }
    let (material, place) = material?;
    if !material.takes(algorithm) {
        place.error(
            format!("{} can't be used with this algorithm", described(&material)),
            format!("algorithm = {}", quoted(usual(&material))),
        );
    }
    Some(JwtKey {
        id,
        algorithm: Some(algorithm),
        material,
    })
}

fn warn_if_short(secret: &Secret, item: &RawItem<'_>) {
    if secret.expose().len() < SHORT_SECRET {
        item.warning(
            "the secret is shorter than 16 bytes: it can be guessed from one JWT",
            "sign with at least 32 random bytes",
        );
    }
}
