//! What the claims of a token give, once its signature holds. Pure.

use serde_json::{Map, Value};

use crate::config::{Grant, Issuer};

/// Characters of a subject's name; OpenID Connect allows 255.
const LONGEST_SUBJECT: usize = 255;

/// All that a token says.
pub type Claims = Map<String, Value>;

/// Holds the claims against what the signature's check does not look at. Times are seconds since 1970.
///
/// # Errors
/// Continues "the token ".
pub fn check(claims: &Claims, issuer: &Issuer, now: u64) -> Result<(), &'static str> {
    // A list with the issuer in it is not the issuer.
    if claims.get("iss").and_then(Value::as_str) != Some(&issuer.issuer) {
        return Err("is of another issuer");
    }
    let skew = issuer.clock_skew.as_secs();
    let time = |name: &str| seconds(claims.get(name)?);
    let Some(issued) = time("iat") else {
        return Err("does not say when it was issued (`iat`)");
    };
    if issued > now.saturating_add(skew) {
        return Err("was issued in the future; compare the clocks");
    }
    let expires = time("exp").unwrap_or(0);
    if expires.saturating_sub(issued) > issuer.longest.as_secs() {
        return Err(
            "is good for longer than tokens of its issuer may be (`longest` under [[oidc]])",
        );
    }
    // Good for whoever has another secret besides, which nobody asks for here.
    if claims.contains_key("cnf") {
        return Err("is bound to a key of its holder's (`cnf`), which cannot be checked here");
    }
    match subject(claims) {
        Some(_) => Ok(()),
        None => Err("names no subject (`sub`)"),
    }
}

/// Whom the token is about.
pub fn subject(claims: &Claims) -> Option<&str> {
    let subject = claims.get("sub")?.as_str()?;
    let is_name =
        !subject.is_empty() && subject.len() <= LONGEST_SUBJECT && !subject.contains('\0');
    is_name.then_some(subject)
}

/// The first grant that fits.
pub fn granted<'a>(claims: &Claims, grants: &'a [Grant]) -> Option<&'a Grant> {
    grants
        .iter()
        .find(|grant| match (&grant.claim, &grant.value) {
            (Some(claim), Some(value)) => has(claims, claim, value),
            _ => true,
        })
}

/// Whether a claim is this text, or a list with it; the scopes of OAuth are a list with blanks between.
fn has(claims: &Claims, claim: &str, value: &str) -> bool {
    let found = match claim.strip_prefix('/') {
        None => claims.get(claim),
        Some(path) => {
            let first = path.split('/').next().unwrap_or_default();
            let name = first.replace("~1", "/").replace("~0", "~");
            let rest = &path[first.len()..];
            claims.get(&name).and_then(|inner| inner.pointer(rest))
        }
    };
    match found {
        Some(Value::String(text)) if ["scope", "scp"].contains(&claim) => {
            text.split(' ').any(|scope| scope == value)
        }
        Some(Value::String(text)) => text == value,
        Some(Value::Array(list)) => list.iter().any(|item| item.as_str() == Some(value)),
        _ => false,
    }
}

/// A time, which may have a fraction.
fn seconds(value: &Value) -> Option<u64> {
    let fraction = || value.as_f64().filter(|time| (0.0..1e15).contains(time));
    value
        .as_u64()
        .or_else(|| fraction().map(|time| time as u64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn grant(claim: &str, value: &str) -> Grant {
        Grant {
            claim: Some(claim.into()),
            value: Some(value.into()),
            scopes: vec!["inference".into()],
            model: None,
            limit: None,
        }
    }

    fn claims(value: Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_first_grant_that_fits_counts() {
        let token = claims(json!({
            "groups": ["staff", "gemma"], "scope": "openid gemma:ask", "role": "a b", "email_verified": true,
            "realm_access": {"roles": ["admin"]}, "a/b": {"c~d": "x"}
        }));
        for (claim, value, fits) in [
            ("groups", "gemma", true),
            ("groups", "gem", false),
            ("groups", "staff gemma", false),
            ("scope", "gemma:ask", true),
            ("scope", "openid gemma:ask", false),
            ("role", "a", false),
            ("role", "a b", true),
            ("email_verified", "true", false),
            ("nothing", "", false),
            ("/realm_access/roles", "admin", true),
            ("/realm_access", "admin", false),
            ("realm_access", "admin", false),
            ("/a~1b/c~0d", "x", true),
            ("/groups/1", "gemma", true),
            ("/groups/2", "gemma", false),
        ] {
            let grants = [grant(claim, value)];
            assert_eq!(granted(&token, &grants).is_some(), fits, "{claim} {value}");
        }
        let everybody = Grant {
            claim: None,
            value: None,
            limit: Some(3),
            ..grant("", "")
        };
        let grants = [
            grant("groups", "others"),
            everybody,
            grant("groups", "gemma"),
        ];
        assert_eq!(granted(&token, &grants), Some(&grants[1]));
    }

    #[test]
    fn times_issuer_and_subject_are_held_against_the_configuration() {
        let issuer = Issuer {
            issuer: "https://id.example".into(),
            audience: vec!["gemmad".into()],
            keys: None,
            clock_skew: Duration::from_secs(60),
            longest: Duration::from_secs(3600),
            users: Default::default(),
            grants: vec![],
        };
        let now = 1_800_000_000;
        let good =
            json!({"iss": "https://id.example", "sub": "anna", "iat": now - 10, "exp": now + 100});
        let with = |name: &str, value: Value| {
            let mut token = claims(good.clone());
            token.insert(name.into(), value);
            check(&token, &issuer, now)
        };
        assert_eq!(with("iss", json!("https://id.example")), Ok(()));
        assert_eq!(with("iat", json!(now as f64 + 59.5)), Ok(()));
        assert_eq!(with("exp", json!(now - 10 + 3600)), Ok(()));
        for (name, value) in [
            ("iss", json!(["https://id.example"])),
            ("iss", json!("https://id.example/")),
            ("iss", json!("https://ID.example")),
            ("iat", json!(now + 61)),
            ("iat", json!("yesterday")),
            ("iat", json!(-1)),
            ("exp", json!(now - 10 + 3601)),
            ("cnf", json!({"jkt": "x"})),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sub", json!("x".repeat(256))),
            ("sub", json!("a\0b")),
        ] {
            assert!(with(name, value.clone()).is_err(), "{name} {value}");
        }
    }
}
