//! What a document says at a path, whoever wrote it. Pure.
//!
//! Keeps true: identifiers read the same as an `ObjectId`, as a string, or as the document that one was populated with; a
//! path goes through arrays, as MongoDB's own paths do; odd types are read as mongoose would cast them, or not at all.
//! Must not know: which fields there are.

use mongodb::bson::RawDocument;
use mongodb::bson::raw::RawBsonRef;

/// Documents nest no deeper than MongoDB's own limit (100); this bounds the walk through arrays of arrays.
const DEEPEST: usize = 16;

/// Every value at a dotted path, in the document's order.
pub fn values<'d>(document: &'d RawDocument, path: &str) -> Vec<RawBsonRef<'d>> {
    let mut found = Vec::new();
    walk(RawBsonRef::Document(document), path, DEEPEST, &mut found);
    found
}

fn walk<'d>(value: RawBsonRef<'d>, path: &str, depth: usize, found: &mut Vec<RawBsonRef<'d>>) {
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    match value {
        RawBsonRef::Array(elements) => {
            for element in elements.into_iter().flatten() {
                walk(element, path, depth, found);
            }
        }
        _ if path.is_empty() => found.push(value),
        RawBsonRef::Document(document) => {
            let (name, rest) = path.split_once('.').unwrap_or((path, ""));
            if let Ok(Some(inner)) = document.get(name) {
                walk(inner, rest, depth, found);
            }
        }
        _ => {}
    }
}

/// The first value at a path.
pub fn first<'d>(document: &'d RawDocument, path: &str) -> Option<RawBsonRef<'d>> {
    values(document, path).into_iter().next()
}

/// An identifier as a JWT writes it: an `ObjectId` in lower-case hexadecimal, a string, a whole number; of an embedded
/// document its `_id`. Empty is none.
pub fn identifier(value: RawBsonRef<'_>) -> Option<Box<str>> {
    let text = match value {
        RawBsonRef::ObjectId(id) => id.to_hex(),
        RawBsonRef::String(text) => text.to_owned(),
        RawBsonRef::Int32(number) => number.to_string(),
        RawBsonRef::Int64(number) => number.to_string(),
        // JavaScript's numbers are doubles, and whole ones mean integers.
        RawBsonRef::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            format!("{number:.0}")
        }
        RawBsonRef::Document(document) => return identifier(document.get("_id").ok()??),
        _ => return None,
    };
    (!text.is_empty()).then(|| text.into())
}

/// All identifiers at a path.
pub fn identifiers(document: &RawDocument, path: &str) -> Vec<Box<str>> {
    values(document, path)
        .into_iter()
        .filter_map(identifier)
        .collect()
}

/// A yes or no, as mongoose casts them; `None` for what is neither.
pub fn boolean(value: RawBsonRef<'_>) -> Option<bool> {
    match value {
        RawBsonRef::Boolean(value) => Some(value),
        RawBsonRef::Int32(number) => Some(number != 0),
        RawBsonRef::Int64(number) => Some(number != 0),
        RawBsonRef::Double(number) => Some(number != 0.0),
        RawBsonRef::String(text) => match text {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" | "" => Some(false),
            _ => None,
        },
        RawBsonRef::Null | RawBsonRef::Undefined => Some(false),
        _ => None,
    }
}

/// Whether a field that forbids something is set. What can't be read forbids.
pub fn forbids(document: &RawDocument, path: &str) -> bool {
    values(document, path)
        .into_iter()
        .any(|value| boolean(value).unwrap_or(true))
}

/// Whether any value at a path is this one: the same identifier or text, or the same yes or no.
pub fn any_equals(document: &RawDocument, path: &str, wanted: &str) -> bool {
    let truth = match wanted {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    values(document, path).into_iter().any(|value| {
        let same_truth = truth.is_some() && boolean(value) == truth;
        same_truth || identifier(value).is_some_and(|text| *text == *wanted)
    })
}

#[cfg(test)]
mod tests {
    use mongodb::bson::oid::ObjectId;
    use mongodb::bson::{RawDocumentBuf, rawdoc};

    use super::*;

    fn document() -> RawDocumentBuf {
        let id = ObjectId::parse_str("65f0a1b2c3d4e5f6a7b8c9d0").unwrap();
        rawdoc! {
            "owner": id,
            "populated": { "_id": id, "name": "Asha" },
            "viewers": [ { "userId": id }, { "userId": "text" }, { "other": 1 } ],
            "ids": ["a", id, 7, 8.0, 8.5, ""],
            "session": { "sessionId": "s1" },
            "one": 1,
            "no": false,
            "nothing": null,
            "word": "suspended",
        }
    }

    #[test]
    fn identifiers_read_the_same_whatever_their_type() {
        let document = document();
        let hexadecimal = "65f0a1b2c3d4e5f6a7b8c9d0";
        assert_eq!(*identifiers(&document, "owner"), [hexadecimal.into()]);
        assert_eq!(*identifiers(&document, "populated"), [hexadecimal.into()]);
        assert_eq!(
            *identifiers(&document, "viewers.userId"),
            [hexadecimal.into(), "text".into()]
        );
        assert_eq!(
            *identifiers(&document, "ids"),
            ["a".into(), hexadecimal.into(), "7".into(), "8".into()]
        );
        assert_eq!(*identifiers(&document, "session.sessionId"), ["s1".into()]);
        assert!(identifiers(&document, "session.missing.deeper").is_empty());
    }

    #[test]
    fn booleans_are_cast_as_mongoose_casts_them() {
        let document = document();
        assert!(forbids(&document, "one"));
        assert!(!forbids(&document, "no"));
        assert!(!forbids(&document, "nothing"));
        assert!(!forbids(&document, "missing"));
        assert!(forbids(&document, "word"), "what can't be read forbids");
        assert!(any_equals(&document, "one", "true"));
        assert!(any_equals(&document, "one", "1"));
        assert!(any_equals(&document, "word", "suspended"));
        assert!(!any_equals(&document, "missing", "false"));
    }
}
