//! The reader of files of cases passes over nothing: a case that is lost in a file would hold nothing, and no test
//! would say so.

use crate::support::case_files::CaseFile;

fn read(text: &'static str) -> Result<usize, String> {
    let file = CaseFile {
        text,
        keywords: &["send", "expect"],
        groups: &[("one", 2), ("two", 1)],
    };
    let groups = file.parse()?;
    Ok(groups.iter().map(Vec::len).sum())
}

const WHOLE: &str = "# How to read this.\n\ngroup one\n\ncase a\nsend x\n# A word.\nexpect y\n\ncase b\nsend x\n\n\
                     group two\ncase c\n";

#[test]
fn each_case_is_found_in_its_group() {
    assert_eq!(read(WHOLE), Ok(3));
}

#[test]
fn what_is_unknown_missing_or_out_of_place_is_an_error() {
    for (what, from, to) in [
        ("no head", "# How to read this.\n", ""),
        ("an unknown keyword", "expect y", "expects y"),
        ("no value", "expect y", "expect"),
        ("a space in front", "send x\n\ngroup", " send x\n\ngroup"),
        ("a line outside of a case", "case a\n", ""),
        ("a line outside of a group", "group one\n", ""),
        ("one case less", "case b\nsend x\n", ""),
        ("one case more", "case c\n", "case c\ncase d\n"),
        ("a group without cases", "case c\n", ""),
        ("another group", "group two", "group three"),
        ("one group less", "group two\ncase c\n", ""),
    ] {
        let text = WHOLE.replacen(from, to, 1);
        assert_ne!(text, WHOLE, "{what}");
        assert!(read(text.leak()).is_err(), "{what}");
    }
}

#[test]
fn a_file_without_cases_is_an_error_whatever_is_expected_of_it() {
    let empty = |groups| CaseFile {
        text: "# How to read this.\n",
        keywords: &["send"],
        groups,
    };
    assert!(empty(&[]).parse().is_err());
    assert!(empty(&[("one", 0)]).parse().is_err());
}
