//! The options of a connection string: which the driver has, which mean nothing here, which it lacks.
//!
//! Keeps true: every option that Node's driver takes in a string is in one of the tables
//! (`tests/config/connection_strings.rs`); none that guards a connection is left out.
//! Must not know: how a string is taken apart.

/// Options that mean nothing here, of mongoose, of Node's drivers old and new, and of writes: how sockets are kept, how
/// Node parses, what mongoose does, which secondary is asked. Lower case. What guards a connection isn't among them.
const WITHOUT_MEANING: [&str; 62] = [
    "__skippingonconnect",
    "autocreate",
    "autoindex",
    "autoreconnect",
    "autoselectfamily",
    "autoselectfamilyattempttimeout",
    "bsonregexp",
    "buffercommands",
    "buffermaxentries",
    "checkkeys",
    "compressors",
    "connectiontype",
    "connectwithnoprimary",
    "domainsenabled",
    "enabletrace",
    "enableutf8validation",
    "family",
    "fieldsasraw",
    "forceserverobjectid",
    "fsync",
    "ha",
    "hainterval",
    "hints",
    "ignoreundefined",
    "index",
    "j",
    "journal",
    "keepalive",
    "keepaliveinitialdelay",
    "lookup",
    "maxstalenessseconds",
    "maxtimems",
    "minheartbeatfrequencyms",
    "mininternalbuffersize",
    "mongodblogmaxdocumentlength",
    "monitorcommands",
    "name",
    "nodelay",
    "poolsize",
    "promotebuffers",
    "promotelongs",
    "promotevalues",
    "raw",
    "readpreferencetags",
    "reconnectinterval",
    "reconnecttries",
    "serializefunctions",
    "sockettimeoutms",
    "srvpoller",
    "strictquery",
    "timeoutms",
    "usebigint64",
    "usecreateindex",
    "usefindandmodify",
    "usenewurlparser",
    "useunifiedtopology",
    "uuidrepresentation",
    "validateoptions",
    "waitqueuemultiple",
    "writeconcern",
    "wtimeout",
    "zlibcompressionlevel",
];

/// Options that the driver takes in a string, as it spells them.
pub(super) const TAKEN: [&str; 33] = [
    "appName",
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "connectTimeoutMS",
    "directConnection",
    "enableOverloadRetargeting",
    "heartbeatFrequencyMS",
    "loadBalanced",
    "localThresholdMS",
    "maxAdaptiveRetries",
    "maxConnecting",
    "maxIdleTimeMS",
    "maxPoolSize",
    "minPoolSize",
    "readConcernLevel",
    "readPreference",
    "replicaSet",
    "retryReads",
    "retryWrites",
    "serverMonitoringMode",
    "serverSelectionTimeoutMS",
    "srvMaxHosts",
    "srvServiceName",
    "ssl",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsCAFile",
    "tlsCertificateKeyFile",
    "tlsInsecure",
    "w",
    "waitQueueTimeoutMS",
    "wtimeoutMS",
];

/// Options of other drivers and times, and what says the same today.
pub(super) const RENAMED: [(&str, &str); 10] = [
    ("ssl_ca_certs", "tlsCAFile=PATH"),
    ("ssl_cert_reqs", "tlsAllowInvalidCertificates=true"),
    ("ssl_certfile", "tlsCertificateKeyFile=PATH"),
    ("ssl_keyfile", "tlsCertificateKeyFile=PATH"),
    (
        "sslAllowInvalidCertificates",
        "tlsAllowInvalidCertificates=true",
    ),
    ("sslCA", "tlsCAFile=PATH"),
    ("sslCert", "tlsCertificateKeyFile=PATH"),
    ("sslKey", "tlsCertificateKeyFile=PATH"),
    ("sslPEMKeyFile", "tlsCertificateKeyFile=PATH"),
    ("sslValidate", "tlsAllowInvalidCertificates=true"),
];

const PROXY: (&str, &str) = (
    "proxy for the database",
    "leave the proxy out, and let the string name an address that this machine reaches: the end of a tunnel (ssh -L), a VPN",
);
const TLS_PARTS: (&str, &str) = (
    "setting of Node's TLS",
    "say it with tlsCAFile, tlsCertificateKeyFile or tlsAllowInvalidCertificates",
);
const MECHANISM: (&str, &str) = (
    "such way to sign in",
    "make a user with a password (SCRAM-SHA-256) or a certificate (MONGODB-X509) who may read the two collections",
);

/// Options that Node's driver has and this one lacks: the option in lower case, what it is, what to do instead.
const UNSUPPORTED: [(&str, (&str, &str)); 33] = [
    (
        "tlsallowinvalidhostnames",
        (
            "way to take a certificate of another name",
            "let the certificate name the host of the string, or use a name that it has; tlsAllowInvalidCertificates=true checks nothing at all",
        ),
    ),
    ("proxyhost", PROXY),
    ("proxypassword", PROXY),
    ("proxyport", PROXY),
    ("proxyusername", PROXY),
    (
        "tlscertificatekeyfilepassword",
        (
            "passphrase for the client's key",
            "write the key without one (openssl pkey) into a file that only the daemon's user may read",
        ),
    ),
    (
        "tlscrlfile",
        (
            "list of revoked certificates",
            "leave it out: trust an authority of your own by tlsCAFile, and give its certificates a short life",
        ),
    ),
    (
        "sslcrl",
        (
            "list of revoked certificates",
            "leave it out: trust an authority of your own by tlsCAFile, and give its certificates a short life",
        ),
    ),
    (
        "dbname",
        (
            "option for the database",
            "write mongodb.database, or /NAME behind the hosts",
        ),
    ),
    ("alpnprotocols", TLS_PARTS),
    ("allowpartialtrustchain", TLS_PARTS),
    (
        "auth",
        ("option for the user", "write mongodb://USER:PASSWORD@HOST"),
    ),
    ("ca", TLS_PARTS),
    ("cert", TLS_PARTS),
    ("checkserveridentity", TLS_PARTS),
    ("ciphers", TLS_PARTS),
    ("crl", TLS_PARTS),
    ("ecdhcurve", TLS_PARTS),
    ("key", TLS_PARTS),
    (
        "localaddress",
        (
            "choice of the own address",
            "leave it out, and let the routing table choose",
        ),
    ),
    ("localport", ("choice of the own port", "leave it out")),
    ("mindhsize", TLS_PARTS),
    ("passphrase", TLS_PARTS),
    ("pfx", TLS_PARTS),
    ("pskcallback", TLS_PARTS),
    ("rejectunauthorized", TLS_PARTS),
    ("requestcert", TLS_PARTS),
    ("requestocsp", TLS_PARTS),
    ("securecontext", TLS_PARTS),
    ("secureprotocol", TLS_PARTS),
    ("servername", TLS_PARTS),
    ("session", TLS_PARTS),
    ("snicallback", TLS_PARTS),
];

/// Ways to sign in that Node's driver has and this one lacks, or had and no server has any more.
const MECHANISMS: [&str; 4] = ["GSSAPI", "MONGODB-AWS", "MONGODB-CR", "MONGODB-OIDC"];

/// How this build treats an option.
pub(super) enum OptionMeaning {
    /// The option has no meaning here and can be left out.
    None,
    /// The option asks for something that this build lacks.
    Unsupported {
        /// The thing that is missing.
        what: &'static str,
        /// The way to do without.
        instead: &'static str,
    },
    /// The driver judges the option.
    Driver,
}

/// How this build treats an option.
pub(super) fn meaning(name: &str, value: &str) -> OptionMeaning {
    let name = name.to_ascii_lowercase();
    let unsupported = |(what, instead): (&'static str, &'static str)| OptionMeaning::Unsupported {
        what,
        instead,
    };
    match name.as_str() {
        // `DEFAULT` lets Node's driver choose, as mongodb 3.9 does without the option
        // (`AuthMechanism::from_stream_description`).
        "authmechanism" if value.eq_ignore_ascii_case("DEFAULT") => return OptionMeaning::None,
        "authmechanism"
            if MECHANISMS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(value)) =>
        {
            return unsupported(MECHANISM);
        }
        // For Node's driver 0 is no limit; mongodb 3.9 refuses it (`ClientOptions::validate`), and the daemon has its
        // own limit.
        "maxpoolsize" if value == "0" => return OptionMeaning::None,
        // mongodb 3.9 checks host names without this option too.
        "tlsallowinvalidhostnames" if value == "false" => return OptionMeaning::None,
        _ => {}
    }
    if WITHOUT_MEANING.contains(&name.as_str()) {
        return OptionMeaning::None;
    }
    let found = UNSUPPORTED.iter().find(|(known, _)| *known == name);
    found.map_or(OptionMeaning::Driver, |(_, lack)| unsupported(*lack))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_in_one_table() {
        for known in WITHOUT_MEANING {
            assert_eq!(known, known.to_ascii_lowercase());
            assert!(UNSUPPORTED.iter().all(|(other, _)| *other != known));
        }
        for known in TAKEN {
            assert!(
                matches!(meaning(known, "x"), OptionMeaning::Driver),
                "{known}"
            );
        }
    }
}
