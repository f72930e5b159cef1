//! Key pairs made by openssl, and tokens that Node signs with them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::npm;

/// A key pair, both halves PEM.
#[derive(Clone)]
pub struct Pair {
    pub private: String,
    pub public: String,
}

impl Pair {
    /// `how` is the argument of `openssl genpkey -algorithm`.
    pub fn generate(how: &str) -> Self {
        let private = openssl(&format!("genpkey -quiet -algorithm {how}"), "");
        let public = openssl("pkey -pubout", &private);
        Self { private, public }
    }

    pub fn rsa() -> Self {
        Self::generate("RSA -pkeyopt rsa_keygen_bits:2048")
    }

    pub fn ec(curve: &str) -> Self {
        Self::generate(&format!("EC -pkeyopt ec_paramgen_curve:{curve}"))
    }

    pub fn ed25519() -> Self {
        Self::generate("ED25519")
    }

    /// This key as a member of a key set, by node:crypto.
    pub fn jwk(&self) -> Value {
        let script = "const {createPublicKey}=require('node:crypto');\
            process.stdout.write(JSON.stringify(createPublicKey(require('node:fs').readFileSync(0)).export({format:'jwk'})))";
        serde_json::from_str(&run(
            Command::new("node").args(["-e", script]),
            &self.public,
        ))
        .unwrap()
    }

    /// A token that Node signs.
    pub fn sign(&self, algorithm: &str, payload: &Value, key_id: &str) -> String {
        let row = json!({"key": self.private, "algorithm": algorithm, "payload": payload, "keyid": key_id});
        let directory = npm::package("jwt");
        npm::ensure(&directory);
        let mut node = Command::new("node");
        node.arg("sign.js").current_dir(directory);
        run(&mut node, &format!("{row}\n")).trim().to_owned()
    }

    /// A token with this header, signed by node:crypto under ES256.
    pub fn sign_with(&self, header: &Value, payload: &Value) -> String {
        let script = "const {sign}=require('node:crypto');const row=JSON.parse(require('node:fs').readFileSync(0));\
            const encode=(value)=>Buffer.from(JSON.stringify(value)).toString('base64url');\
            const signed=`${encode(row.header)}.${encode(row.payload)}`;\
            const signature=sign('sha256',Buffer.from(signed),{key:row.key,dsaEncoding:'ieee-p1363'});\
            process.stdout.write(`${signed}.${signature.toString('base64url')}`)";
        let row = json!({"key": self.private, "header": header, "payload": payload}).to_string();
        run(Command::new("node").args(["-e", script]), &row)
    }

    /// A raw signature by openssl, as DER where that is what openssl makes.
    pub fn openssl_signature(&self, signed: &str) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), &self.private).unwrap();
        std::fs::write(directory.path().join("data"), signed).unwrap();
        let output = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign", "key", "data"])
            .current_dir(&directory)
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }
}

fn openssl(arguments: &str, input: &str) -> String {
    run(Command::new("openssl").args(arguments.split(' ')), input)
}

fn run(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl and node are installed");
    // A program that reads nothing may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}
