//! The published schemas, and a checker for the part of JSON Schema that they use.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schema")
}

fn read(name: &str) -> Value {
    let path = folder().join(format!("{name}.json"));
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Checks an object that `cairn --json` printed against the schema of its type.
pub fn check_object(object: &Value) {
    let kind = object["type"].as_str().unwrap();
    assert_valid(object, kind);
    if let (Some(report), Some(command)) = (object.get("report"), object["command"].as_str()) {
        assert_valid(report, &format!("report-{}", command.replace(' ', "-")));
    }
}

fn assert_valid(value: &Value, name: &str) {
    if let Err(problem) = check(value, &read(name), "$") {
        panic!("{value} is not a valid {name}: {problem}");
    }
}

/// Keywords that the checker understands; a schema with others would be checked too leniently.
const KEYWORDS: [&str; 15] = [
    "$schema",
    "title",
    "description",
    "type",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "format",
    "minimum",
    "minLength",
    "maxLength",
    "default",
];

fn check(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    let keywords = schema.as_object().ok_or("a schema is an object")?;
    if let Some(unknown) = keywords.keys().find(|name| !KEYWORDS.contains(&name.as_str())) {
        return Err(format!("{at}: the checker does not know the keyword {unknown}"));
    }
    let fail = |what: &str| Err(format!("{at}: {value} {what}"));
    if let Some(expected) = schema.get("type") {
        let types = expected.as_array().cloned().unwrap_or_else(|| vec![expected.clone()]);
        if !types.iter().any(|name| name.as_str() == Some(type_of(value))) {
            return fail(&format!("is not of type {expected}"));
        }
    }
    if schema.get("const").is_some_and(|expected| expected != value) {
        return fail("is not the constant");
    }
    if schema.get("enum").is_some_and(|names| !names.as_array().unwrap().contains(value)) {
        return fail("is not one of the names");
    }
    if let Some(minimum) = schema.get("minimum").and_then(Value::as_i64)
        && value.as_i64().is_some_and(|number| number < minimum)
    {
        return fail("is too small");
    }
    if let Some(text) = value.as_str() {
        check_text(text, schema).or_else(|what| fail(&what))?;
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        for (index, item) in items.iter().enumerate() {
            check(item, schema, &format!("{at}[{index}]"))?;
        }
    }
    check_fields(value, schema, at)
}

fn check_text(text: &str, schema: &Value) -> Result<(), String> {
    let length = text.chars().count() as u64;
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    if bound("minLength").is_some_and(|min| length < min)
        || bound("maxLength").is_some_and(|max| length > max)
    {
        return Err("has a wrong length".into());
    }
    match schema.get("format").and_then(Value::as_str) {
        Some("date-time") if text.parse::<jiff::Timestamp>().is_err() => Err("is no time".into()),
        Some("hex") if !text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)) => {
            Err("is not hexadecimal".into())
        }
        Some("date-time" | "hex") | None => Ok(()),
        Some(other) => Err(format!("has the unknown format {other}")),
    }
}

fn check_fields(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    let Some(fields) = value.as_object() else { return Ok(()) };
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, field) in fields {
        match properties.and_then(|properties| properties.get(name)) {
            Some(schema) => check(field, schema, &format!("{at}.{name}"))?,
            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                return Err(format!("{at}: {name} is not in the schema"));
            }
            None => {}
        }
    }
    Ok(())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let good =
        serde_json::json!({ "type": "warning", "code": "a.b", "subject": "", "message": "" });
    let schema = read("warning");
    assert_eq!(check(&good, &schema, "$"), Ok(()));
    for (field, value) in
        [("code", Value::from(1)), ("extra", Value::from(1)), ("type", "x".into())]
    {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(check(&bad, &schema, "$").is_err(), "{bad}");
    }
    let mut bad = good;
    bad.as_object_mut().unwrap().remove("message");
    assert!(check(&bad, &schema, "$").is_err());
    let cache = serde_json::json!({ "type": "cache", "repository": "XY", "bytes": -1 });
    assert!(check(&cache, &read("cache"), "$").is_err());
}

#[test]
fn every_schema_describes_every_field() {
    for file in fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(schema["additionalProperties"], false, "{}", path.display());
        for (name, property) in schema["properties"].as_object().unwrap() {
            let described = property.get("description").is_some() || name == "type";
            assert!(described, "{}: {name}", path.display());
        }
    }
}
