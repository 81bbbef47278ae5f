//! Tokens of an OpenID Connect issuer that is found over TLS: RSA and P-256, keys that change, and what
//! is tried to be taken for one.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::skip::skip;
use harness::{Daemon, Options, question};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};

/// A user that nobody is.
const GATEWAY_USER: u32 = 64_124;

fn run(program: &str, arguments: &[&str], at: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(at)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
}

/// `web.py` with what an issuer publishes.
struct Issuer {
    folder: tempfile::TempDir,
    process: Child,
    url: String,
    rsa: RsaKeyPair,
    curve: EcdsaKeyPair,
}

impl Issuer {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let certificate = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=issuer -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout pair.pem -out trusted.pem";
        run("openssl", &certificate.split(' ').collect::<Vec<_>>(), at);
        let pair = fs::read_to_string(at.join("pair.pem")).unwrap();
        let trusted = fs::read_to_string(at.join("trusted.pem")).unwrap();
        fs::write(at.join("pair.pem"), pair + &trusted).unwrap();
        let key = "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem";
        run("openssl", &key.split(' ').collect::<Vec<_>>(), at);
        let key = "pkcs8 -topk8 -nocrypt -in rsa.pem -outform DER -out rsa.der";
        run("openssl", &key.split(' ').collect::<Vec<_>>(), at);
        let rsa = RsaKeyPair::from_pkcs8(&fs::read(at.join("rsa.der")).unwrap()).unwrap();
        let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web.py");
        fs::create_dir_all(at.join("public/.well-known")).unwrap();
        let mut process = Command::new("python3")
            .arg(web)
            .args([at.join("public"), at.join("pair.pem")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = format!("https://localhost:{}", line.trim());
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys.json")});
        let found = at.join("public/.well-known/openid-configuration");
        fs::write(found, discovery.to_string()).unwrap();
        let random = SystemRandom::new();
        let curve =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let curve =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, curve.as_ref(), &random);
        let issuer = Self {
            rsa,
            curve: curve.unwrap(),
            folder,
            process,
            url,
        };
        issuer.publish(&[issuer.rsa_jwk()]);
        issuer
    }

    fn publish(&self, keys: &[Value]) {
        let file = self.folder.path().join("public/keys.json");
        fs::write(file, json!({ "keys": keys }).to_string()).unwrap();
    }

    fn rsa_jwk(&self) -> Value {
        let key = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig", "n": text(&key.n), "e": text(&key.e)})
    }

    fn curve_jwk(&self) -> Value {
        let point = self.curve.public_key().as_ref();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": "curve", "x": text(&point[1..33]), "y": text(&point[33..])})
    }

    fn claims(&self) -> Value {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        json!({"iss": self.url, "sub": "anna", "aud": "gemmad", "iat": now, "exp": now + 300, "scope": "openid ask"})
    }

    /// With this change to the claims.
    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims[name] = value;
        self.signed("RS256", "rsa", &claims)
    }

    fn signed(&self, algorithm: &str, key: &str, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": algorithm, "kid": key, "typ": "JWT"});
        let text = format!("{}.{}", part(&header), part(claims));
        let random = SystemRandom::new();
        let signature = match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let signing =
                    self.rsa
                        .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature);
                signing.unwrap();
                signature
            }
            "ES256" => self
                .curve
                .sign(&random, text.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
            // What everybody can read, as if it were a secret.
            "HS256" => {
                let public = self.rsa.public().as_ref();
                let secret = hmac::Key::new(hmac::HMAC_SHA256, public);
                hmac::sign(&secret, text.as_bytes()).as_ref().to_vec()
            }
            "none" => vec![],
            other => panic!("{other}"),
        };
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Requests that it has had.
    fn asked(&self) -> u64 {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--cacert"])
            .arg(self.trusted())
            .arg(format!("{}/asked", self.url))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().parse().unwrap()
    }

    fn trusted(&self) -> PathBuf {
        self.folder.path().join("trusted.pem")
    }

    fn daemon(&self, keys: &str) -> Daemon {
        let options = Options {
            server: "socket-mode = \"0666\"\n".into(),
            limits: "[pull]\nproxy = \"none\"\n".into(),
            access: format!(
                "gateway = \"{GATEWAY_USER}\"\n[[oidc]]\nissuer = \"{}\"\naudience = [\"gemmad\"]\n{keys}\n\
                 [[oidc.grant]]\nclaim = \"scope\"\nvalue = \"ask\"\nscopes = [\"inference\", \"models\", \"admin\"]\n",
                self.url
            ),
            ..Options::default()
        };
        let trusted = self.trusted();
        Daemon::with_environment(options, &[("SSL_CERT_FILE", trusted.to_str().unwrap())])
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Status and error code of an answer on the socket.
fn ask(daemon: &Daemon, token: &str, path: &str, options: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["-sS", "-w", "\n%{http_code}", "--unix-socket"])
        .arg(&daemon.socket)
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .args(options)
        .arg(format!("http://localhost{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let code = body["error"]["code"].as_str().unwrap_or("").to_owned();
    (status.parse().unwrap(), code)
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The same but for the first six bits of its signature.
fn with_another_signature(token: &str) -> String {
    let (text, signature) = token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{text}.{first}{}", &signature[1..])
}

#[test]
fn an_issuers_tokens_are_taken_and_nothing_else_is() {
    let issuer = Issuer::start();
    let daemon = issuer.daemon("");
    let chat = question("What is the capital of France?").to_string();
    let asks = |token: &str| ask(&daemon, token, "/v1/chat/completions", &["-d", &chat]);
    let good = issuer.signed("RS256", "rsa", &issuer.claims());
    assert_eq!(asks(&good), code(200, ""));
    // Whoever is no user here asks, and no more, whatever the grant says.
    for (path, options) in [
        ("/models/unload", &["-d", ""][..]),
        ("/metrics", &[]),
        ("/tokens", &["-d", "{}"]),
        ("/v1/models/nothing", &["-X", "DELETE"]),
    ] {
        assert_eq!(
            ask(&daemon, &good, path, options),
            code(403, "not_permitted"),
            "{path}"
        );
    }
    let past = issuer.claims()["iat"].as_u64().unwrap();
    for (token, answer) in [
        (
            issuer.with("exp", json!(past - 100)),
            code(401, "token_expired"),
        ),
        (
            issuer.with("aud", json!("other")),
            code(401, "invalid_token"),
        ),
        (
            issuer.with("nbf", json!(past + 600)),
            code(401, "invalid_token"),
        ),
        (
            issuer.with("x", json!("x".repeat(8 << 10))),
            code(401, "invalid_token"),
        ),
        (
            issuer.with("scope", json!("openid")),
            code(403, "not_permitted"),
        ),
        (
            issuer.signed("none", "rsa", &issuer.claims()),
            code(401, "invalid_token"),
        ),
        (
            issuer.signed("HS256", "rsa", &issuer.claims()),
            code(401, "invalid_token"),
        ),
        (with_another_signature(&good), code(401, "invalid_token")),
    ] {
        assert_eq!(asks(&token), answer, "{token}");
    }
    // On the socket another service's key is passed over; the kernel says who asks.
    let other = issuer.with("iss", json!("https://localhost"));
    assert_eq!(asks(&other), code(200, ""));
    // The issuer changes its keys: the new one is fetched, once.
    let (asked, begun) = (issuer.asked(), Instant::now());
    issuer.publish(&[issuer.curve_jwk()]);
    let new = issuer.signed("ES256", "curve", &issuer.claims());
    assert_eq!(asks(&new), code(200, ""));
    assert_eq!(asks(&good), code(401, "invalid_token"));
    for name in 0..40 {
        let flood = issuer.signed("ES256", &format!("unknown {name}"), &issuer.claims());
        assert_eq!(asks(&flood), code(401, "invalid_token"));
    }
    // Four a minute, of two requests each: discovery and keys.
    let (fetched, most) = (issuer.asked() - asked, 4 + begun.elapsed().as_secs() / 15);
    assert!(fetched <= 2 * most, "{fetched} requests, {most} fetches");
    assert_eq!(asks(&new), code(200, ""));
    // Nothing of a token is in the log.
    let log = daemon.log();
    for token in [&good, &new] {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!log.contains(&signature[..20]), "{log}");
    }
    assert!(log.contains("the issuer's keys were fetched"), "{log}");
}

#[test]
fn a_mapped_subject_has_a_users_rights_and_keys_may_be_in_a_file() {
    let issuer = Issuer::start();
    let file = issuer.folder.path().join("public/keys.json");
    let keys = format!(
        "keys = \"{}\"\nusers = {{ anna = \"root\" }}",
        file.display()
    );
    let daemon = issuer.daemon(&keys);
    let good = issuer.signed("RS256", "rsa", &issuer.claims());
    assert_eq!(ask(&daemon, &good, "/metrics", &[]).0, 200);
    assert_eq!(
        ask(&daemon, &issuer.with("sub", json!("ben")), "/metrics", &[]).0,
        403
    );
    assert_eq!(issuer.asked(), 0);
    // A file is read again when the configuration is.
    issuer.publish(&[issuer.curve_jwk()]);
    daemon.signal("HUP");
    let new = issuer.signed("ES256", "curve", &issuer.claims());
    harness::wait_for("the new key", || {
        ask(&daemon, &new, "/metrics", &[]).0 == 200
    });
    assert_eq!(ask(&daemon, &good, "/metrics", &[]).0, 401);
    // One that cannot be used changes nothing.
    fs::write(&file, "{}").unwrap();
    daemon.signal("HUP");
    harness::wait_for("the refusal", || {
        daemon.log().contains("no JSON Web Key Set")
    });
    assert_eq!(ask(&daemon, &new, "/metrics", &[]).0, 200);
}

#[test]
fn the_gateway_passes_an_issuers_token_on() {
    if !rustix::process::geteuid().is_root() {
        skip(
            "an issuer's tokens through the gateway",
            "only root can ask as its user",
        );
        return;
    }
    let issuer = Issuer::start();
    let daemon = issuer.daemon("");
    fs::set_permissions(
        daemon.dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let as_gateway = |token: &str| {
        let output = Command::new("setpriv")
            .args([
                format!("--reuid={GATEWAY_USER}"),
                format!("--regid={GATEWAY_USER}"),
            ])
            .args([
                "--clear-groups",
                "curl",
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
            ])
            .arg("--unix-socket")
            .arg(&daemon.socket)
            .args(["-H", "x-gemmad-peer: 192.0.2.1", "-H"])
            .arg(format!("x-api-key: {token}"))
            .arg("http://localhost/v1/models")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        as_gateway(&issuer.signed("RS256", "rsa", &issuer.claims())),
        "200"
    );
    assert_eq!(
        as_gateway(&issuer.with("iss", json!("https://localhost"))),
        "401"
    );
    assert_eq!(as_gateway(&issuer.with("aud", json!("other"))), "401");
}

#[test]
fn a_real_issuers_tokens_are_taken() {
    let Ok(modules) = std::env::var("GEMMAD_NODE_MODULES") else {
        return skip(
            "tokens of oidc-provider",
            "GEMMAD_NODE_MODULES names no folder with the packages of tests/clients/package.json; `make test` makes one",
        );
    };
    // Its certificate; what it serves itself is not asked.
    let mut issuer = Issuer::start();
    let at = issuer.folder.path();
    std::os::unix::fs::symlink(modules, at.join("node_modules")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/issuer.mjs");
    fs::copy(script, at.join("issuer.mjs")).unwrap();
    let mut process = Command::new("node")
        .args([at.join("issuer.mjs"), at.join("pair.pem")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    issuer.url = line.trim().to_owned();
    // The real one ends with the test as the other does.
    let mut replaced = std::mem::replace(&mut issuer.process, process);
    replaced.kill().unwrap();
    replaced.wait().unwrap();
    let token = |client: &str, resource: &str| {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--cacert"])
            .arg(issuer.trusted())
            .args(["-u", &format!("{client}:{client}-secret"), "-d"])
            .arg(format!(
                "grant_type=client_credentials&scope=ask&resource=urn:{resource}"
            ))
            .arg(format!("{}/token", issuer.url))
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        told["access_token"].as_str().expect("a token").to_owned()
    };
    let daemon = issuer.daemon("users = { anna = \"root\" }\nclock-skew = \"0s\"");
    let anna = token("anna", "gemmad");
    let models = |token: &str| ask(&daemon, token, "/v1/models", &[]);
    assert_eq!(models(&anna), code(200, ""));
    assert_eq!(models(&token("ben", "curve")), code(200, ""));
    assert_eq!(ask(&daemon, &anna, "/metrics", &[]).0, 200);
    let bens = ask(&daemon, &token("ben", "gemmad"), "/metrics", &[]);
    assert_eq!(bens, code(403, "not_permitted"));
    assert_eq!(models(&token("anna", "other")), code(401, "invalid_token"));
    assert_eq!(
        models(&with_another_signature(&anna)),
        code(401, "invalid_token")
    );
    let soon = token("anna", "soon");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(models(&soon), code(401, "token_expired"));
}
