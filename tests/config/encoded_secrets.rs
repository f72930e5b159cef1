//! JWT secrets in base64, against the bytes that Node's `Buffer.from` makes of them.

use std::process::Command;

use renewd::config::model::KeyMaterial;

use crate::config::load_with;
use crate::support::environment::FixedEnvironment;

/// Spellings of the secrets of Node apps: padded or not, in either alphabet, in lines as `openssl` writes them, with bits
/// behind the last byte.
const SPELLINGS: [&str; 7] = [
    "+/+/+/+/+/+/+/+/+/+/+w==",
    "-_-_-_-_-_-_-_-_-_-_-w",
    "-/-/+_+_-_-_-_-_-_-_-w==",
    "c2VjcmV0IHRoYXQgaXMgbG9uZyBlbm91Z2ggZm9yIEhTMjU2",
    "c2VjcmV0IHRoYXQgaXMgbG9uZyBlbm91Z2ggZm9y\nIEhTNTEyLCBpbiB0d28gbGluZXM=",
    "  c2VjcmV0IHRoYXQgaXMgbG9uZyBlbm91Z2g=\r\n",
    "c2VjcmV0IHRoYXQgaXMgbG9uZyBlbm91Z2h=",
];

#[test]
fn a_secret_in_base64_is_the_bytes_that_node_decodes() {
    let script = "console.log(Buffer.from(process.argv[1], 'base64').toString('hex'))";
    for spelling in SPELLINGS {
        let node = Command::new("node")
            .args(["-e", script, "--", spelling])
            .output()
            .unwrap();
        let mut environment = FixedEnvironment::default();
        environment
            .variables
            .insert("JWT_SECRET", spelling.to_owned());
        let text = crate::config::base_and("auth.jwt.secret_encoding", "\"base64\"");
        let loaded = load_with(&text, &environment).unwrap();
        let [key] = loaded.config.jwt.keys.as_slice() else {
            panic!("one key");
        };
        let KeyMaterial::Secret(secret) = &key.material else {
            panic!("a secret");
        };
        let hex = |byte: &u8| format!("{byte:02x}");
        let ours: String = secret.expose().iter().map(hex).collect();
        assert!(!ours.is_empty());
        assert_eq!(
            ours,
            String::from_utf8(node.stdout).unwrap().trim(),
            "{spelling}"
        );
    }
}

#[test]
fn a_public_key_in_base64_is_no_secret_either() {
    let mut environment = FixedEnvironment::default();
    let pem = environment.files[std::path::Path::new("/etc/renewd/tls.pem")].clone();
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    environment.variables.insert("JWT_SECRET", encoded);
    let text = crate::config::base_and("auth.jwt.secret_encoding", "\"base64\"");
    let errors = load_with(&text, &environment).unwrap_err().to_string();
    assert!(errors.contains("this is a key in PEM"), "{errors}");
}
