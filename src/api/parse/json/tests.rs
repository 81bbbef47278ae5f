use super::*;

fn field(json: &str) -> Json<'_> {
    body(json.as_bytes()).unwrap().take("x").unwrap()
}

fn problem(bytes: &[u8]) -> String {
    body(bytes).unwrap_err().reason
}

#[test]
fn a_body_is_one_object() {
    assert!(problem(b"").contains("empty"));
    assert!(problem(b" \n").contains("empty"));
    assert!(problem(b"hello").contains("not JSON"));
    assert!(problem(b"[]").contains("must be an object, not an array"));
    assert!(problem(b"7").contains("must be an object, not a number"));
    assert!(problem(b"{\"a\":1} x").contains("trailing"));
    assert!(problem(b"{\"a\":\"\xff\"}").contains("UTF-8 (byte 6)"));
}

#[test]
fn broken_syntax_names_the_field_it_is_in() {
    assert_eq!(
        body(br#"{"a":1,"temperature":NaN}"#).unwrap_err().field,
        "temperature"
    );
    assert_eq!(body(br#"{"a":1,"b":[1,2"#).unwrap_err().field, "b");
    assert_eq!(body(br#"{"a":1,"#).unwrap_err().field, "");
}

#[test]
fn numbers_have_bounds() {
    for bad in [
        "-1",
        "11",
        "1.5",
        "1e3",
        "99999999999999999999999999999999999999999999",
        "\"3\"",
        "true",
        "[]",
    ] {
        assert_eq!(
            field(&format!("{{\"x\":{bad}}}"))
                .integer(0..=10)
                .unwrap_err()
                .field,
            "x",
            "{bad}"
        );
    }
    assert_eq!(field(r#"{"x":10}"#).integer(0..=10), Ok(10));
    for bad in ["1e999", "-1e10", "\"0.5\"", "{}"] {
        assert_eq!(
            field(&format!("{{\"x\":{bad}}}"))
                .number()
                .unwrap_err()
                .field,
            "x",
            "{bad}"
        );
    }
    assert_eq!(field(r#"{"x":5e-1}"#).number(), Ok(0.5));
}

#[test]
fn half_a_surrogate_is_no_string() {
    assert_eq!(field(r#"{"x":"\ud800"}"#).string().unwrap_err().field, "x");
    assert_eq!(field(r#"{"x":"\ud83d\ude00"}"#).string().unwrap(), "😀");
}

#[test]
fn paths_lead_to_the_value() {
    let array = field(r#"{"x":[1,{"y":"s"}]}"#).array().unwrap();
    let y = array[1].object().unwrap().take("y").unwrap();
    assert_eq!(
        y.boolean().unwrap_err(),
        Invalid::new("x[1].y", "must be true or false, not a string")
    );
}

#[test]
fn null_is_absent_and_unknown_names_are_refused() {
    let mut object = body(br#"{"temperature":null,"junk":null}"#).unwrap();
    assert!(object.take("temperature").is_none());
    object.finish().unwrap();

    let mut object = body(br#"{"temprature":1}"#).unwrap();
    assert!(object.take("temperature").is_none());
    let error = object.finish().unwrap_err();
    assert_eq!(error.field, "temprature");
    assert!(error.reason.contains("`temperature`"), "{}", error.reason);
    assert_eq!(
        body(br#"{"a":1,"a":2}"#).unwrap_err(),
        Invalid::new("a", "is given twice")
    );
}

#[test]
fn size_and_depth_are_bounded() {
    let many = format!("{{\"x\":[{}0]}}", "0,".repeat(MAX_ENTRIES));
    assert!(field(&many).array().unwrap_err().reason.contains("4096"));
    let deep = format!(
        "{{\"x\":{}{}}}",
        "{\"a\":".repeat(200) + "1",
        "}".repeat(200)
    );
    assert!(
        field(&deep)
            .opaque_object()
            .unwrap_err()
            .reason
            .contains("recursion")
    );
    // Far deeper than any stack.
    let abyss = "[".repeat(5_000_000);
    assert!(body(format!("{{\"x\":{abyss}").as_bytes()).is_err());
    let long = format!("{{\"{}\":1}}", "n".repeat(10_000));
    assert!(
        body(long.as_bytes())
            .unwrap()
            .finish()
            .unwrap_err()
            .field
            .len()
            < 100
    );
    let large = format!("{{\"x\":{{\"a\":\"{}\"}}}}", "b".repeat(MAX_OPAQUE_BYTES));
    assert!(
        field(&large)
            .opaque_object()
            .unwrap_err()
            .reason
            .contains("1048576")
    );
}

#[test]
fn a_file_beside_the_body_is_had_by_its_number() {
    let files = [Arc::from(&b"a"[..]), Arc::from(&b"b"[..])];
    let named = |name: &str| {
        let body = format!(r#"{{"x":[{{"y":{name}}}]}}"#);
        let array = body_with(body.as_bytes(), &files).unwrap().take("x");
        let mut object = array.unwrap().array().unwrap()[0].object().unwrap();
        object.take("y").unwrap().passed_file()
    };
    assert_eq!(named("\"fd:1\"").as_deref(), Some(&b"b"[..]));
    for other in ["\"fd:2\"", "\"fd:\"", "\"1\"", "1"] {
        assert_eq!(named(other), None, "{other}");
    }
    assert_eq!(field(r#"{"x":"fd:0"}"#).passed_file(), None);
}
