//! What expressions may do, what is said of wrong ones, and that a body means the same to jq as to everyone else.

use serde_json::{Value as Json, json};

use super::*;

fn program(jq: &str) -> Result<Program, Vec<Mistake>> {
    Program::compile(condition_script("key", jq))
}

/// What an expression makes of a body: the value, or the words.
fn run(jq: &str, body: &str) -> Result<Json, String> {
    let program = program(jq).unwrap_or_else(|mistakes| panic!("{jq}: {mistakes:?}"));
    let answer = program.run(body.as_bytes()).map_err(|refusal| refusal.to_string())?;
    let items: Vec<Json> = serde_json::from_slice(&answer).expect("an answer is JSON");
    let item = items.into_iter().next().expect("one item");
    match item.get("fault") {
        Some(words) => Err(words.as_str().expect("a text").to_owned()),
        None => Ok(item.get("holds").cloned().unwrap_or_default()),
    }
}

#[test]
fn what_reads_the_environment_or_leaves_the_program_does_not_exist() {
    for jq in [
        "env",
        "$ENV",
        "$ENV.PATH",
        "env.PATH",
        "now",
        "input",
        "inputs",
        "halt",
        "halt_error",
        "halt_error(1)",
        "debug",
        "debug(.)",
        "stderr",
        "localtime",
        "strflocaltime(\"%Z\")",
        "input_filename",
        "input_line_number",
        "get_search_list",
        "$__prog_args",
        "getpath",
        "@csv",
        "ltrimstr",
        "import \"a\" as a; .",
        "include \"a\"; .",
        "import \"a\" as $a; $a",
        "read_file",
        "splits(1; 2; 3)",
    ] {
        let mistakes = program(jq).expect_err(jq);
        assert_eq!(mistakes.len(), 1, "{jq}: {mistakes:?}");
        assert_eq!(mistakes[0].key, "key");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (jq, words) in [
        ("", "column 1: expected term, but the expression ends here"),
        (".a | foo(1)", "column 6: there is no function foo/1 here"),
        (".a |\n  $x", "line 2, column 3: there is no variable $x here"),
        ("\"é\" | bar", "column 7: there is no function bar/0 here"),
        (".a | ]", "column 6: expected token, but found something else"),
        ("(.a", "column 4: expected closing parenthesis, but the expression ends here"),
        ("1) elif true then (2", "column 2: expected token, but found something else"),
        ("include \"a\"; .", "modules cannot be loaded here"),
    ] {
        let mistakes = program(jq).expect_err(jq);
        assert!(mistakes[0].message.contains(words), "{jq}: {}", mistakes[0].message);
    }
    let two = Script {
        class: Some(Expression::new("class", "foo")),
        parts: vec![("a".to_owned(), Expression::new("fields.a", ".b | bar # no end"))],
        ..Script::default()
    };
    let mistakes = Program::compile(two).expect_err("two unknown names");
    let told: Vec<_> = mistakes.iter().map(|mistake| (mistake.key.as_str(), mistake.message.as_str())).collect();
    assert_eq!(
        told,
        [
            ("class", "column 1: there is no function foo/0 here"),
            ("fields.a", "column 6: there is no function bar/0 here")
        ]
    );
}

/// The deepest that is let through is compiled and run on a test's stack, which is that of any thread; what is deeper is refused.
#[test]
fn no_expression_overflows_the_stack_of_its_reader() {
    let forms: [(&str, &str, &str); 25] = [
        ("(", "1", ")"),
        ("(", "", ""),
        ("[", "1", "]"),
        ("{a:", "1", "}"),
        ("-", "1", ""),
        ("if . then ", "1", " end"),
        ("if . then 1 elif . then ", "1", " end"),
        ("try ", ".", ""),
        (". as $x | ", ".", ""),
        (". as [", "$x", "] | 1"),
        ("def f: ", "1", "; f"),
        ("def f: 1; ", "f", ""),
        (".|", ".", ""),
        (".,", ".", ""),
        ("1+", "1", ""),
        ("1//", "1", ""),
        (". and ", ".", ""),
        ("", ".", "?"),
        ("", ".", "[]"),
        ("", ".", ".a"),
        ("\"\\(", "1", ")\""),
        ("reduce . as $x (0;", "1", ")"),
        ("label $a|", ".", ""),
        ("map(", "1", ")"),
        (".[", "1", "]"),
    ];
    for (before, middle, after) in forms {
        let form = |count: usize| format!("{}{middle}{}", before.repeat(count), after.repeat(count));
        let fits = |count: &usize| !is_too_deep(&form(*count)) && form(*count).len() <= EXPRESSION_BYTES_MAX;
        let deepest = form((1..20_000).collect::<Vec<_>>().partition_point(fits));
        assert!(!is_too_deep(&deepest));
        if let Ok(program) = program(&deepest) {
            drop(program.run(b"{}"));
        }
        assert!(program(&form(20_000)).is_err());
    }
    drop(program(&format!("\"{}\"", "\\(1)".repeat(150))));
}

#[test]
fn values_reach_jq_and_come_back_as_they_are() {
    for body in [
        r#"{"b":1,"a":[null,true,false,"x\u0000é\"\\"],"":{}}"#,
        "12345678901234567890123",
        "-0.10",
        "1e400",
        "1774267200.123",
        "[]",
    ] {
        let answer = program("[.]").expect("jq").run(body.as_bytes()).expect("runs");
        let text = String::from_utf8(answer).expect("text");
        let plain: Json = serde_json::from_str(body).unwrap_or_default();
        if plain.is_number() || plain.is_null() {
            assert_eq!(text, format!(r#"[{{"class":"verdict","holds":[{body}]}}]"#));
        } else {
            assert_eq!(run(".", body), Ok(plain));
        }
    }
    assert_eq!(run(".a + 1 | tostring", r#"{"a":12345678901234567890}"#), Ok(json!("12345678901234567891")));
    assert_eq!(run("[1.50, 1/3, nan, infinite]", "{}"), Ok(json!([1.5, 1.0 / 3.0, null, null])));
    assert_eq!(run("keys_unsorted", r#"{"z":1,"a":2}"#), Ok(json!(["z", "a"])));
    let digits = "1".repeat(1_000_000);
    assert_eq!(run("type", &digits), Ok(json!("number")));
}

#[test]
fn an_expression_gives_one_value_or_none() {
    assert_eq!(run("empty", "{}"), Ok(Json::Null));
    assert_eq!(run("select(.a > 1) | true", r#"{"a":2}"#), Ok(json!(true)));
    assert_eq!(
        run(".a[]", r#"{"a":[1,2]}"#),
        Err("key: gave more than one value: collect them in [ ], or take the first( )".to_owned())
    );
    assert_eq!(run("1, repeat(1)", "{}").expect_err("two values").len(), 72);
    for jq in [
        ".a.b",
        "error(.)",
        "error",
        ".a | test(\"(\")",
        "{(1): 2}",
        "{a: {(\"x\", \"y\"): 1}} | .a.b.c.d | length | .e",
    ] {
        let words = run(jq, r#"{"a":"canary"}"#).map_or_else(|words| words, |value| value.to_string());
        assert!(!words.contains("canary"), "{words}");
    }
    assert_eq!(
        run("reduce range(100) as $i (0; [.])", "{}"),
        Err("key: gave a value nested deeper than 60 levels".to_owned())
    );
    assert_eq!(run("IN(\"a\", \"b\")", "\"b\""), Ok(json!(true)));
    assert_eq!(run("test(\"^a+$\")", "\"aaa\""), Ok(json!(true)));
}

#[test]
fn a_body_is_read_strictly_before_jq_sees_it() {
    for (body, words) in [
        (r#"{"a":1,"a":2}"#, "not readable JSON: a key stands twice in this object, so which one is meant is a guess"),
        (
            r#"{"x":{"a":1,"\u0061":2}}"#,
            "not readable JSON: x: a key stands twice in this object, so which one is meant is a guess",
        ),
        ("{", "not readable JSON: byte 1: expected a key in quotes"),
        ("NaN", "not readable JSON: byte 0: expected a value"),
    ] {
        assert_eq!(run(".", body), Err(words.to_owned()), "{body}");
    }
    for body in ["[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        assert!(run(".", &body).expect_err("too deep").contains("deeper than 64"));
    }
}

#[test]
fn the_answer_has_a_bound() {
    let refusal =
        program("[range(100000) | \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\" * 4]")
            .expect("jq");
    let answer = refusal.run(b"{}").expect("an item that is refused");
    assert_eq!(String::from_utf8_lossy(&answer), r#"[{"fault":"key: gave more than 16 MiB"}]"#);
    let many = Script { foreach: Some(Expression::new("foreach", "range(2000000)")), ..Script::default() };
    let refusal = Program::compile(many).expect("jq").run(b"{}").expect_err("too much");
    assert!(refusal.to_string().starts_with("jq: "), "{refusal}");
}

/// Content and envelope of each message, or the words.
fn unwrapped(unwrap: Unwrap, body: &Json) -> Json {
    let part = ("holds".to_owned(), Expression::new("key", "[., $envelope]"));
    let program = Program::compile(Script { unwrap, parts: vec![part], ..Script::default() }).expect("jq");
    match program.run(body.to_string().as_bytes()) {
        Ok(answer) => {
            let items: Vec<Json> = serde_json::from_slice(&answer).expect("JSON");
            items.iter().map(|item| item.get("holds").or(item.get("fault")).cloned().unwrap_or_default()).collect()
        }
        Err(refusal) => json!(refusal.to_string()),
    }
}

#[test]
fn what_stands_around_a_message_is_taken_off_once() {
    let inner = json!({"a": 1, "Type": "Notification", "TopicArn": "t", "Message": "{}"});
    let sns = json!({"Type": "Notification", "TopicArn": "t", "Message": inner.to_string()});
    let grid = json!({"id": "1", "eventType": "a.b", "eventTime": "2026-03-23T12:00:00Z", "data": {"a": 1}});
    let handshake = json!({"id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "eventTime": "2026-03-23T12:00:00Z", "data": {"validationCode": "x"}});
    let cloud = json!({"specversion": "1.0", "id": "1", "data": {"a": 1}});
    let encoded = json!({"specversion": "1.0", "id": "1", "data_base64": "eyJhIjoxfQ=="});
    for unwrap in [Unwrap::Auto, Unwrap::Sns] {
        assert_eq!(unwrapped(unwrap, &sns), json!([[inner, sns]]));
        let confirmation = json!({"Type": "SubscriptionConfirmation", "TopicArn": "t", "Message": "You have chosen"});
        assert_eq!(unwrapped(unwrap, &confirmation), json!([]));
        for (message, words) in
            [("no", "expected JSON in the text"), (r#"{"a":1,"a":1}"#, "a key stands twice in the JSON in the text")]
        {
            let odd = json!({"Type": "Notification", "TopicArn": "t", "Message": message});
            assert_eq!(unwrapped(unwrap, &odd), json!(format!("jq: Message: {words}")));
        }
    }
    for unwrap in [Unwrap::Auto, Unwrap::EventGrid] {
        assert_eq!(unwrapped(unwrap, &grid), json!([[{"a": 1}, grid]]));
        assert_eq!(unwrapped(unwrap, &json!([handshake])), json!([]));
        assert_eq!(
            unwrapped(unwrap, &json!([grid, 1, grid])),
            json!([[{"a": 1}, grid], "not an event like those before it", [{"a": 1}, grid]])
        );
    }
    for unwrap in [Unwrap::Auto, Unwrap::CloudEvents] {
        assert_eq!(unwrapped(unwrap, &cloud), json!([[{"a": 1}, cloud]]));
        assert_eq!(unwrapped(unwrap, &json!([encoded])), json!([[{"a": 1}, encoded]]));
        let odd = json!({"specversion": "1.0", "id": "1"});
        assert_eq!(unwrapped(unwrap, &odd), json!("jq: data is missing"));
    }
    // What looks like none of them, or is told to be none, is the message itself.
    for body in [json!({"type": "x"}), json!([1]), json!([]), json!("x")] {
        assert_eq!(unwrapped(Unwrap::Auto, &body), json!([[body, null]]));
    }
    assert_eq!(unwrapped(Unwrap::None, &sns), json!([[sns, null]]));
    for unwrap in [Unwrap::Sns, Unwrap::EventGrid, Unwrap::CloudEvents] {
        assert!(unwrapped(unwrap, &json!({"a": 1})).as_str().is_some_and(|words| words.contains("expected")));
    }
}

#[test]
fn lines_are_messages_and_an_empty_body_is_none() {
    let program = program(".a").expect("jq");
    let answer = |body: &str| String::from_utf8(program.run(body.as_bytes()).expect("lines")).expect("text");
    assert_eq!(
        answer("{\"a\":1}\n\n{\"a\":2}\r\n"),
        r#"[{"class":"verdict","holds":1},{"class":"verdict","holds":2}]"#
    );
    assert!(answer("{\"a\":1}\n{\"a\":\n").contains("fault"));
    assert_eq!(answer(" \n"), "[]");
    assert!(program.run(b"{\"a\":\n1 1}").is_err());
}

#[test]
fn a_condition_holds_for_everything_but_null_false_and_nothing() {
    for (jq, holds) in [
        ("true", true),
        ("0", true),
        ("\"\"", true),
        ("false", false),
        ("null", false),
        ("empty", false),
        (".a > 1", false),
    ] {
        assert_eq!(condition(&program(jq).expect("jq"), b"{\"a\":1}"), Ok(holds), "{jq}");
    }
    for jq in ["1, 2", "error", ".a.b"] {
        assert!(condition(&program(jq).expect("jq"), b"{\"a\":1}").is_err(), "{jq}");
    }
}
