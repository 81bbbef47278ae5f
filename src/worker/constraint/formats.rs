//! What strings of a `format` look like, as regular expressions without anchors.

/// The months with their days, February with 28.
macro_rules! month_and_day {
    () => {
        "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    };
}
macro_rules! date {
    () => {
        concat!(
            "(?:[0-9]{4}-",
            month_and_day!(),
            "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
        )
    };
}
macro_rules! time {
    () => {
        "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
    };
}
macro_rules! byte {
    () => {
        "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    };
}
macro_rules! label {
    () => {
        "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    };
}
macro_rules! host {
    () => {
        concat!(label!(), "(?:\\.", label!(), "){0,7}")
    };
}

/// Formats of which the random tests make texts.
#[cfg(test)]
pub const FORMATS: [&str; 10] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "time",
    "uri",
    "uuid",
];

/// The expression of texts of a format, though not of all of them: those that every validator
/// takes. `None` for a format that says nothing of texts, or is not known.
pub fn regex(format: &str) -> Option<&'static str> {
    Some(match format {
        // RFC 3339
        "date" => date!(),
        "time" => time!(),
        "date-time" => concat!(date!(), "T", time!()),
        // RFC 3339, appendix A
        "duration" => {
            "P(?:[0-9]{1,9}W|(?:[0-9]{1,9}Y(?:[0-9]{1,9}M(?:[0-9]{1,9}D)?)?|[0-9]{1,9}M(?:[0-9]{1,9}D)?|[0-9]{1,9}D)(?:T[0-9]{1,9}[HMS])?|T(?:[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}S))"
        }
        // RFC 5321, without quoted local parts and address literals
        "email" | "idn-email" => concat!(
            "[a-zA-Z0-9_+-]{1,20}(?:\\.[a-zA-Z0-9_+-]{1,20}){0,2}@",
            label!(),
            "(?:\\.",
            label!(),
            "){1,3}"
        ),
        // RFC 1123
        "hostname" | "idn-hostname" => host!(),
        "ipv4" => concat!(byte!(), "(?:\\.", byte!(), "){3}"),
        // RFC 4291, in full and with one gap at the end or the start
        "ipv6" => {
            "(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|(?:[0-9a-fA-F]{1,4}:){1,6}:(?:[0-9a-fA-F]{1,4})?|::(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,5})?"
        }
        // RFC 4122
        "uuid" => "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
        // RFC 3986
        "uri" | "iri" => concat!(
            "[a-zA-Z][a-zA-Z0-9+.-]{0,20}:(?://",
            host!(),
            "(?::[0-9]{1,4})?(?:/[a-zA-Z0-9_.~!$&'()*+,;=:@-]*)*|[a-zA-Z0-9_.~!$&'()*+,;=:@-]+)",
            "(?:\\?[a-zA-Z0-9_.~!$&'()*+,;=:@/?-]*)?(?:#[a-zA-Z0-9_.~!$&'()*+,;=:@/?-]*)?"
        ),
        // What is relative is a path here.
        "uri-reference" | "iri-reference" => {
            "/?[a-zA-Z0-9_.~-]+(?:/[a-zA-Z0-9_.~-]+)*(?:\\?[a-zA-Z0-9_.~=&-]*)?(?:#[a-zA-Z0-9_.~-]*)?|https?://[a-zA-Z0-9-]{1,60}(?:\\.[a-zA-Z0-9-]{1,60}){0,4}(?:/[a-zA-Z0-9_.~-]*)*|#[a-zA-Z0-9_.~/-]*"
        }
        // RFC 6570, with plain expressions
        "uri-template" => "(?:[a-zA-Z0-9_.~/:?=&-]|\\{[a-zA-Z_][a-zA-Z0-9_]*\\})*",
        // RFC 6901
        "json-pointer" => "(?:/(?:[^~/\\x00-\\x1f]|~[01])*)*",
        "relative-json-pointer" => "(?:0|[1-9][0-9]{0,5})(?:#|(?:/(?:[^~/\\x00-\\x1f]|~[01])*)*)",
        // ECMA-262: plain characters and classes, each with how often
        "regex" => {
            "\\^?(?:(?:[a-zA-Z0-9 _@%&=<>~;:'/,!\"-]|\\\\[dDwWsS.*+?(){}|^$/\\[\\]-]|\\.|\\[\\^?(?:[a-zA-Z0-9_.]|[a-y]-z|[A-Y]-Z|[0-8]-9)+\\]|\\((?:\\?:)?[a-zA-Z0-9 _-]+(?:\\|[a-zA-Z0-9 _-]+)*\\))(?:[*+?]|\\{[1-9][0-9]?\\})?)*\\$?"
        }
        _ => return None,
    })
}
