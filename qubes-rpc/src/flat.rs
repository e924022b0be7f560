//! The JSON object of an unframed request: few keys and no nesting, so that it takes little more
//! memory than its text. `[1,1,1,…]` would take sixteen times as much.

use std::fmt;

use contract::limits;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// An object of at most [`limits::PLAIN_KEYS`] keys whose values are neither objects nor arrays.
#[derive(Debug)]
pub(crate) struct Flat(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(FlatVisitor).map(Self)
    }
}

struct FlatVisitor;

impl<'de> Visitor<'de> for FlatVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.len() == limits::PLAIN_KEYS {
                let most = limits::PLAIN_KEYS;
                return Err(A::Error::custom(format_args!("more than {most} keys")));
            }
            if key.len() > limits::PLAIN_KEY_BYTES {
                return Err(A::Error::custom("a key is too long"));
            }
            let Scalar(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(object)
    }
}

/// A value that holds no others.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ScalarVisitor).map(Self)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string, a number, true, false or null")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, serde_json::Error> {
        serde_json::from_str(text).map(|Flat(object)| object.into())
    }

    #[test]
    fn values_are_read_as_they_are_and_none_holds_others() {
        let text = r#"{"a":"é","b":"\n","c":1,"d":-1,"e":0.5,"f":true,"g":null}"#;
        assert_eq!(read(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        for bad in ["{\"a\":[]}", "{\"a\":{}}", "[1]", "1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let many = |keys: usize| {
            let all: Vec<String> = (0..keys).map(|key| format!("\"k{key}\":1")).collect();
            read(&format!("{{{}}}", all.join(",")))
        };
        assert!(many(limits::PLAIN_KEYS).is_ok() && many(limits::PLAIN_KEYS + 1).is_err());
    }

    #[test]
    fn a_key_has_the_length_of_a_name_at_most() {
        let parse = |length: usize| {
            serde_json::from_str::<Flat>(&format!(r#"{{"{}":1}}"#, "k".repeat(length)))
        };
        assert_eq!(parse(limits::PLAIN_KEY_BYTES).unwrap().0.len(), 1);
        let error = parse(limits::PLAIN_KEY_BYTES + 1).unwrap_err();
        assert!(error.to_string().starts_with("a key is too long"), "{error}");
    }
}
