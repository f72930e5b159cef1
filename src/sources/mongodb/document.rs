//! The value of a document at a path, whichever program wrote the document. Pure.
//!
//! Keeps true: an identifier reads the same as an `ObjectId`, as a string, or as the document that it was populated
//! with; a path goes through arrays, as MongoDB's own paths do; unusual types are read as mongoose would cast them,
//! or not at all.
//! Must not know: which fields there are.

use mongodb::bson::raw::RawBsonRef;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Document, RawDocument, Uuid, doc};

/// Documents nest no deeper than MongoDB's own limit (100); this bounds the walk through arrays of arrays.
const DEEPEST: usize = 16;

/// How deep a document may nest: MongoDB stores no deeper ones.
const MOST_NESTED: usize = 128;

/// A projection of the whole fields that these paths begin with.
pub(crate) fn projection<'p>(paths: impl Iterator<Item = &'p str>) -> Document {
    let mut projection = doc! { "_id": 1 };
    for path in paths {
        let field = path.split_once('.').map_or(path, |(field, _)| field);
        projection.insert(field, 1);
    }
    projection
}

/// Every value at a dotted path, in the document's order.
pub(crate) fn values<'d>(document: &'d RawDocument, path: &str) -> Vec<RawBsonRef<'d>> {
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

/// Whether anything stands at a path, null included; `None` where an empty list, a null or a damaged value stands on
/// the way: what it would contain may have the rest of the path.
pub(crate) fn has(document: &RawDocument, path: &str) -> Option<bool> {
    leads(RawBsonRef::Document(document), path, DEEPEST)
}

fn leads(value: RawBsonRef<'_>, path: &str, depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    match value {
        _ if path.is_empty() => Some(true),
        RawBsonRef::Array(elements) => {
            let mut elements = elements.into_iter().flatten();
            let first = elements.next()?;
            let mut all = std::iter::once(first).chain(elements);
            let found = all.find_map(|element| leads(element, path, depth).filter(|has| *has));
            Some(found.is_some())
        }
        RawBsonRef::Document(document) => {
            let (name, rest) = path.split_once('.').unwrap_or((path, ""));
            match document.get(name) {
                Ok(Some(inner)) => leads(inner, rest, depth),
                Ok(None) => Some(false),
                Err(_) => None,
            }
        }
        RawBsonRef::Null | RawBsonRef::Undefined => None,
        _ => Some(false),
    }
}

/// The first value at a path.
pub(crate) fn first<'d>(document: &'d RawDocument, path: &str) -> Option<RawBsonRef<'d>> {
    values(document, path).into_iter().next()
}

/// An identifier as a JWT writes it: an `ObjectId` in lower-case hexadecimal, a string, a whole number, a UUID; of an
/// embedded document its `_id`. An empty text is none.
pub(crate) fn identifier(value: RawBsonRef<'_>) -> Option<Box<str>> {
    let text = match value {
        RawBsonRef::ObjectId(id) => id.to_hex(),
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => text.to_owned(),
        RawBsonRef::Int32(number) => number.to_string(),
        RawBsonRef::Int64(number) => number.to_string(),
        RawBsonRef::Binary(binary) if binary.subtype == BinarySubtype::Uuid => {
            Uuid::from_bytes(binary.bytes.try_into().ok()?).to_string()
        }
        RawBsonRef::Document(document) => return identifier(document.get("_id").ok()??),
        // JavaScript's numbers are doubles, and whole ones mean integers. Adding 0 turns -0 into 0.
        _ => match number(value)? {
            number if number.fract() == 0.0 && number.abs() < 9e15 => {
                format!("{:.0}", number + 0.0)
            }
            _ => return None,
        },
    };
    (!text.is_empty()).then(|| text.into())
}

/// All identifiers at a path.
pub(crate) fn identifiers(document: &RawDocument, path: &str) -> Vec<Box<str>> {
    values(document, path)
        .into_iter()
        .filter_map(identifier)
        .collect()
}

/// All identifiers at a path that names banned viewers, including those that stand in the list themselves, without
/// the field that the path's end names.
pub(crate) fn forbidden(document: &RawDocument, path: &str) -> Vec<Box<str>> {
    let bare = path
        .rsplit_once('.')
        .map(|(list, _)| values(document, list));
    let bare = bare.into_iter().flatten();
    let bare = bare.filter(|value| !matches!(value, RawBsonRef::Document(_)));
    let mut found = identifiers(document, path);
    found.extend(bare.filter_map(identifier));
    found
}

/// A number as JavaScript has it; `None` for other values, and for NaN.
fn number(value: RawBsonRef<'_>) -> Option<f64> {
    let number = match value {
        RawBsonRef::Int32(number) => f64::from(number),
        RawBsonRef::Double(number) => number,
        RawBsonRef::Decimal128(number) => number.to_string().parse().ok()?,
        _ => return None,
    };
    (!number.is_nan()).then_some(number)
}

/// A yes or no, as mongoose casts them; `None` for what is neither.
pub(crate) fn boolean(value: RawBsonRef<'_>) -> Option<bool> {
    match value {
        RawBsonRef::Boolean(value) => Some(value),
        RawBsonRef::Int64(number) => Some(number != 0),
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => match text {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" | "" => Some(false),
            _ => None,
        },
        RawBsonRef::Null | RawBsonRef::Undefined => Some(false),
        _ => number(value).map(|number| number != 0.0),
    }
}

/// Whether a field that forbids something is set. A value that can't be read counts as set.
pub(crate) fn forbids(document: &RawDocument, path: &str) -> bool {
    values(document, path)
        .into_iter()
        .any(|value| boolean(value).unwrap_or(true))
}

/// Whether any value at a path is this one: the same identifier or text, or the same yes or no. `None` where a yes or
/// no is asked for and a value is neither.
pub(crate) fn any_equals(document: &RawDocument, path: &str, wanted: &str) -> Option<bool> {
    let truth = match wanted {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    let mut readable = true;
    for value in values(document, path) {
        let said = boolean(value);
        let same_text = || identifier(value).is_some_and(|text| *text == *wanted);
        if (truth.is_some() && said == truth) || same_text() {
            return Some(true);
        }
        readable &= truth.is_none() || said.is_some();
    }
    readable.then_some(false)
}

/// Whether a document is well-formed to its end, and nests no deeper than MongoDB allows: a part of a damaged
/// document must not count as the whole.
pub(crate) fn is_sound(document: &RawDocument) -> bool {
    sound(RawBsonRef::Document(document), MOST_NESTED)
}

fn sound(value: RawBsonRef<'_>, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    match value {
        RawBsonRef::Document(document) => document
            .into_iter()
            .all(|element| element.is_ok_and(|(_, inner)| sound(inner, depth))),
        RawBsonRef::Array(array) => array
            .into_iter()
            .all(|element| element.is_ok_and(|inner| sound(inner, depth))),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::oid::ObjectId;
    use mongodb::bson::{Binary, Bson, DateTime, RawDocumentBuf, rawdoc};
    use proptest::prelude::*;

    use super::*;

    fn boxed(text: &str) -> Box<str> {
        text.into()
    }

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
        assert_eq!(*identifiers(&document, "owner"), [hexadecimal].map(boxed));
        assert_eq!(
            *identifiers(&document, "populated"),
            [hexadecimal].map(boxed)
        );
        assert_eq!(
            *identifiers(&document, "viewers.userId"),
            [hexadecimal, "text"].map(boxed)
        );
        assert_eq!(
            *identifiers(&document, "ids"),
            ["a", hexadecimal, "7", "8"].map(boxed)
        );
        assert_eq!(
            *identifiers(&document, "session.sessionId"),
            ["s1"].map(boxed)
        );
        assert!(identifiers(&document, "session.missing.deeper").is_empty());
    }

    #[test]
    fn a_field_is_there_is_not_there_or_can_not_be_told() {
        let document = rawdoc! {
            "no": false, "nothing": null, "empty": [], "inner": { "a": 1, "none": null },
            "list": [ "bare", { "userId": "b" } ], "bare": ["c"],
        };
        for (path, has) in [
            ("no", Some(true)),
            ("nothing", Some(true)),
            ("missing", Some(false)),
            ("inner.a", Some(true)),
            ("inner.b", Some(false)),
            ("inner.none.deeper", None),
            ("empty.userId", None),
            ("list.userId", Some(true)),
            ("list.userid", Some(false)),
            ("bare.userId", Some(false)),
            ("no.deeper", Some(false)),
        ] {
            assert_eq!(super::has(&document, path), has, "{path}");
        }
    }

    #[test]
    fn booleans_are_cast_as_mongoose_casts_them() {
        let document = document();
        assert!(forbids(&document, "one"));
        assert!(!forbids(&document, "no"));
        assert!(!forbids(&document, "nothing"));
        assert!(!forbids(&document, "missing"));
        assert!(forbids(&document, "word"), "what can't be read forbids");
        for (path, wanted, equal) in [
            ("one", "true", Some(true)),
            ("one", "1", Some(true)),
            ("one", "false", Some(false)),
            ("word", "suspended", Some(true)),
            ("word", "banned", Some(false)),
            ("word", "true", None),
            ("session", "true", None),
            ("missing", "false", Some(false)),
            ("nothing", "true", Some(false)),
            ("viewers", "true", None),
            ("ids", "a", Some(true)),
        ] {
            assert_eq!(
                any_equals(&document, path, wanted),
                equal,
                "{path} {wanted}"
            );
        }
    }

    #[test]
    fn every_type_is_what_it_evidently_means_or_nothing() {
        let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
        let uuid = Uuid::from_bytes([0xab; 16]);
        let rows: [(Bson, Option<bool>, Option<&str>); 24] = [
            (Bson::Double(f64::NAN), None, None),
            (Bson::Double(f64::INFINITY), Some(true), None),
            (Bson::Double(-0.0), Some(false), Some("0")),
            (Bson::Double(1e300), Some(true), None),
            (Bson::Double(0.5), Some(true), None),
            (Bson::Int32(-1), Some(true), Some("-1")),
            (
                Bson::Int64(i64::MIN),
                Some(true),
                Some("-9223372036854775808"),
            ),
            (decimal("1"), Some(true), Some("1")),
            (decimal("0.0"), Some(false), Some("0")),
            (decimal("1.5"), Some(true), None),
            (decimal("NaN"), None, None),
            (Bson::Null, Some(false), None),
            (Bson::Undefined, Some(false), None),
            (Bson::String(String::new()), Some(false), None),
            (Bson::String("true".into()), Some(true), Some("true")),
            (Bson::Symbol("yes".into()), Some(true), Some("yes")),
            (Bson::DateTime(DateTime::from_millis(0)), None, None),
            (Bson::Document(doc! {}), None, None),
            (Bson::Document(doc! {"_id": {"_id": 7}}), None, Some("7")),
            (
                Bson::Binary(uuid.into()),
                None,
                Some("abababab-abab-abab-abab-abababababab"),
            ),
            (
                Bson::Binary(Binary {
                    subtype: BinarySubtype::Uuid,
                    bytes: vec![1],
                }),
                None,
                None,
            ),
            (
                Bson::Binary(Binary {
                    subtype: BinarySubtype::Generic,
                    bytes: vec![1; 16],
                }),
                None,
                None,
            ),
            (Bson::MinKey, None, None),
            (Bson::JavaScriptCode("1".into()), None, None),
        ];
        for (value, truth, text) in rows {
            let document = RawDocumentBuf::try_from(&doc! { "value": value.clone() }).unwrap();
            let read = first(&document, "value").unwrap();
            assert_eq!(boolean(read), truth, "{value}");
            assert_eq!(identifier(read).as_deref(), text, "{value}");
            assert!(is_sound(&document));
        }
    }

    #[test]
    fn a_subject_in_a_list_of_the_forbidden_is_one_of_them() {
        let document =
            rawdoc! { "banned": [ "a", { "userId": "b" }, 7, { "other": "c" }, null ], "one": "d" };
        assert_eq!(
            *forbidden(&document, "banned.userId"),
            ["b", "a", "7"].map(boxed)
        );
        assert_eq!(*forbidden(&document, "one.userId"), ["d"].map(boxed));
        assert_eq!(*forbidden(&document, "one"), ["d"].map(boxed));
        assert!(forbidden(&document, "none.userId").is_empty());
    }

    #[test]
    fn a_damaged_document_is_not_sound_wherever_the_damage_is() {
        let whole =
            rawdoc! { "a": "text", "b": [ { "c": "deep" }, "more" ], "d": true }.into_bytes();
        let read = |bytes: Vec<u8>| RawDocumentBuf::from_bytes(bytes).map(|found| is_sound(&found));
        assert!(matches!(read(whole.clone()), Ok(true)));
        for text in ["text", "deep", "more"] {
            let at = whole
                .windows(text.len())
                .position(|part| part == text.as_bytes())
                .unwrap();
            let mut bytes = whole.clone();
            bytes[at] = 0xff;
            assert!(matches!(read(bytes), Ok(false)), "{text} isn't UTF-8");
            let mut bytes = whole.clone();
            // The text's length.
            bytes[at - 1] = 0x7f;
            assert!(matches!(read(bytes), Ok(false)), "{text} is too long");
        }
        let mut deep = rawdoc! {};
        for depth in 1..200 {
            assert_eq!(is_sound(&deep), depth <= MOST_NESTED, "{depth}");
            deep = rawdoc! { "a": deep };
        }
    }

    proptest! {
        #[test]
        fn no_damage_makes_a_reader_panic(at in 0..90_usize, byte: u8) {
            let id = ObjectId::parse_str("65f0a1b2c3d4e5f6a7b8c9d0").unwrap();
            let document = rawdoc! { "a": [ { "b": id }, "c", 1.5 ], "d": { "_id": "e" }, "f": true };
            let mut bytes = document.into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(document) = RawDocumentBuf::from_bytes(bytes) {
                for path in ["a.b", "a", "d", "f", "d._id"] {
                    let _ = (forbidden(&document, path), forbids(&document, path));
                    let _ = any_equals(&document, path, "true");
                }
                let _ = is_sound(&document);
            }
        }
    }
}
