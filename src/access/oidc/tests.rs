//! Tokens of an issuer whose keys are made here.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://id.example";

/// A key by a name; the seed is the name's first byte.
struct Signer(&'static str, Ed25519KeyPair);

impl Signer {
    fn new(name: &'static str) -> Self {
        let seed = [name.as_bytes()[0]; 32];
        Self(name, Ed25519KeyPair::from_seed_unchecked(&seed).unwrap())
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.1.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.0, "x": x})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let signature = self.1.sign(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": self.0}), &claims(0))
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Good claims of the subject with this number.
fn claims(number: u32) -> Value {
    json!({"iss": ISSUER, "sub": format!("subject {number}"), "aud": ["other", "gemmad"],
        "iat": now(), "exp": now() + 600, "groups": ["gemma"]})
}

/// An issuer's discovery and keys.
#[derive(Debug, Default)]
struct Served {
    keys: Mutex<Vec<Value>>,
    is_away: Mutex<bool>,
    asked: AtomicUsize,
}

#[derive(Debug)]
struct Source(Arc<Served>);

impl KeySource for Source {
    fn fetch(&self, url: String, first: String) -> Fetching {
        assert_eq!(first, format!("{ISSUER}{DISCOVERY}"));
        let answer = if *lock(&self.0.is_away) {
            Err("it is away".to_owned())
        } else if url == first {
            Ok(json!({"issuer": ISSUER, "jwks_uri": "https://keys.example/"}))
        } else {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            Ok(json!({"keys": *lock(&self.0.keys)}))
        };
        Box::pin(async move {
            tokio::task::yield_now().await;
            answer.map(|answer| answer.to_string().into_bytes())
        })
    }
}

fn configured(text: &str) -> Vec<config::Issuer> {
    #[derive(Deserialize)]
    struct File {
        oidc: Vec<config::Issuer>,
    }
    let text = format!("[[oidc]]\nissuer = \"{ISSUER}\"\naudience = [\"gemmad\"]\n{text}");
    toml::from_str::<File>(&text).unwrap().oidc
}

const ASK: &str = "[[oidc.grant]]\nscopes = [\"inference\", \"models\", \"admin\"]\n";

fn served(signers: &[&Signer]) -> (Oidc, Arc<Served>) {
    let served = Arc::new(Served::default());
    *lock(&served.keys) = signers.iter().map(|signer| signer.jwk()).collect();
    let oidc = Oidc::default();
    oidc.set(&configured(ASK), |_| unreachable!()).unwrap();
    oidc.fetch_with(Arc::new(Source(served.clone())));
    (oidc, served)
}

async fn refusal(oidc: &Oidc, token: &str) -> String {
    match oidc.check(token).await {
        Err(Refusal::Invalid(why)) => why.to_owned(),
        Err(other) => format!("{other:?}"),
        Ok(taken) => panic!("{taken:?}"),
    }
}

#[tokio::test]
async fn keys_change_and_nobody_can_have_them_fetched_for_ever() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (oidc, served) = served(&[&old]);
    // Many at once, and one fetch.
    let (one, two) = (old.token(), old.token());
    let (one, two) = tokio::join!(oidc.check(&one), oidc.check(&two));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(served.asked.load(Ordering::Relaxed), 1);
    // A new key: fetched again at once. The old one is gone with it.
    *lock(&served.keys) = vec![new.jwk()];
    assert!(oidc.check(&new.token()).await.unwrap().is_some());
    assert!(refusal(&oidc, &old.token()).await.contains("does not name"));
    for name in 0..200 {
        let header = json!({"alg": "EdDSA", "kid": format!("no such key {name}")});
        let flood = new.sign(&header, &claims(0));
        assert!(refusal(&oidc, &flood).await.contains("does not name"));
    }
    let asked = served.asked.load(Ordering::Relaxed);
    assert!(asked <= FETCHES as usize, "{asked}");
    assert!(oidc.check(&new.token()).await.unwrap().is_some());
}

#[tokio::test]
async fn an_issuer_that_is_away_is_said() {
    let signer = Signer::new("key");
    let (oidc, served) = served(&[&signer]);
    *lock(&served.is_away) = true;
    let away = oidc.check(&signer.token()).await;
    assert_eq!(away, Err(Refusal::NoKeys("it is away".into())));
    *lock(&served.is_away) = false;
    assert!(oidc.check(&signer.token()).await.unwrap().is_some());
    // What is known is gone by.
    *lock(&served.is_away) = true;
    let unknown = Signer::new("unknown").token();
    assert!(refusal(&oidc, &unknown).await.contains("does not name"));
    assert!(oidc.check(&signer.token()).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_no_token_of_an_issuers_is_passed_over() {
    let signer = Signer::new("key");
    let (oidc, served) = served(&[&signer]);
    let mut others = claims(0);
    others["iss"] = json!("https://other.example");
    let header = json!({"alg": "EdDSA", "kid": "key"});
    for text in ["", "sk-123", "a.b.c", "..", &signer.sign(&header, &others)] {
        assert_eq!(oidc.check(text).await, Ok(None), "{text}");
    }
    assert_eq!(served.asked.load(Ordering::Relaxed), 0);
    assert_eq!(Oidc::default().check(&signer.token()).await, Ok(None));
}

#[tokio::test]
async fn no_header_and_no_claim_is_believed() {
    let signer = Signer::new("key");
    let (oidc, _) = served(&[&signer]);
    let header = json!({"alg": "EdDSA", "kid": "key", "typ": "at+jwt"});
    let fine = signer.sign(&header, &claims(0));
    assert!(oidc.check(&fine).await.unwrap().is_some());
    let headed = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        signer.sign(&header, &claims(0))
    };
    for (token, why) in [
        (headed("alg", json!("none")), "algorithm"),
        (headed("alg", json!("HS256")), "algorithm"),
        (headed("alg", json!("ES256K")), "algorithm"),
        (headed("alg", json!("RS256")), "does not name"),
        (headed("crit", json!(["exp"])), "crit"),
        (headed("crit", json!([])), "crit"),
        (headed("typ", json!("logout+jwt")), "typ"),
    ] {
        let said = refusal(&oidc, &token).await;
        assert!(said.contains(why), "{why}: {said}");
    }
    let claimed = |name: &str, value: Value| {
        let mut claims = claims(0);
        claims[name] = value;
        signer.sign(&header, &claims)
    };
    for (token, why) in [
        (claimed("exp", json!(now() - 61)), "Expired"),
        (claimed("exp", Value::Null), "lacks"),
        (claimed("exp", json!("never")), "lacks"),
        (claimed("nbf", json!(now() + 90)), "nbf"),
        (claimed("aud", json!("other")), "audience"),
        (claimed("aud", json!([])), "audience"),
        (claimed("aud", Value::Null), "lacks"),
        (claimed("iat", json!(now() + 90)), "future"),
        (claimed("exp", json!(now() + 13 * 3600)), "longer"),
        (claimed("cnf", json!({})), "cnf"),
        (claimed("x", json!("x".repeat(LONGEST_TEXT))), "8192"),
    ] {
        let said = refusal(&oidc, &token).await;
        assert!(said.contains(why), "{why}: {said}");
    }
    // The keys of a token that is sent along are nobody's.
    let thief = Signer::new("thief");
    let mut forged = json!({"alg": "EdDSA", "kid": "key", "jwk": thief.jwk()});
    forged["jku"] = json!("https://thief.example/");
    let said = refusal(&oidc, &thief.sign(&forged, &claims(0))).await;
    assert!(said.contains("signature"), "{said}");
    let (first, _) = fine.rsplit_once('.').unwrap();
    let said = refusal(&oidc, &format!("{first}.")).await;
    assert!(said.contains("signature"), "{said}");
}

#[tokio::test]
async fn a_subject_is_nobody_of_this_machine_unless_it_is_configured() {
    let signer = Signer::new("key");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let write = |keys: Value| std::fs::write(&file, keys.to_string()).unwrap();
    write(json!({"keys": [{"kty": "oct", "k": "AAAA"}, {"kty": "new"}, signer.jwk()]}));
    let text = format!(
        "keys = \"{}\"\nusers = {{ \"subject 1\" = \"anna\" }}\n\
         [[oidc.grant]]\nclaim = \"groups\"\nvalue = \"one\"\nscopes = [\"inference\"]\nmodel = \"m\"\nlimit = 2\n{ASK}",
        file.display()
    );
    let anna = |name: &str| {
        assert_eq!(name, "anna");
        Ok((1000, Arc::from([10])))
    };
    let oidc = Oidc::default();
    oidc.set(&configured(&text), anna).unwrap();
    let of = async |number, groups: &str| {
        let mut claims = claims(number);
        claims["groups"] = json!([groups]);
        let token = signer.sign(&json!({"alg": "EdDSA"}), &claims);
        oidc.check(&token).await.unwrap().unwrap()
    };
    let (mapped, other) = (of(1, "").await, of(2, "").await);
    assert_eq!(mapped.user, Some((1000, Arc::from([10]))));
    assert_eq!(mapped.id.account(), PrincipalId::User(1000));
    assert_eq!(mapped.scopes, Scope::ALL);
    assert_eq!((other.user.clone(), other.id.uid()), (None, None));
    assert_eq!(other.scopes, [Scope::Inference]);
    assert_ne!(other.id.account(), of(3, "").await.id.account());
    let narrow = of(2, "one").await;
    assert_eq!(narrow.id.account(), other.id.account());
    assert_ne!(narrow.id, other.id);
    let model = |subject: &Subject| match subject.id {
        PrincipalId::Subject { rights, .. } => oidc.model(rights),
        _ => panic!("{subject:?}"),
    };
    assert_eq!(model(&other), Some(None));
    assert_eq!(model(&narrow), Some(Some("m".to_owned())));
    let at = Instant::now();
    assert!(oidc.count(&narrow, at).is_ok() && oidc.count(&narrow, at).is_ok());
    assert!(matches!(oidc.count(&narrow, at), Err((2, _))));
    assert!(oidc.count(&other, at).is_ok());
    // A file that others can change is not gone by, and changes nothing.
    use std::os::unix::fs::PermissionsExt;
    let mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o666);
    assert!(
        oidc.set(&configured(&text), anna)
            .unwrap_err()
            .contains("0644")
    );
    mode(0o644);
    write(json!({"keys": [{"kty": "oct", "k": "AAAA"}]}));
    assert!(
        oidc.set(&configured(&text), anna)
            .unwrap_err()
            .contains("no public key")
    );
    of(1, "").await;
    // Rights that are taken out of the configuration are none.
    write(json!({"keys": [signer.jwk()]}));
    let without = text.replace("model = \"m\"\n", "");
    oidc.set(&configured(&without), anna).unwrap();
    assert_eq!(model(&narrow), None);
}

#[test]
fn the_words_for_scopes_are_the_tokens() {
    assert_eq!(config::SCOPES, Scope::ALL.map(Scope::word));
}
