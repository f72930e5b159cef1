//! Tables of test cases as text, in files beside the tests.
//!
//! A file begins with a comment that says how to read it. Then `group NAME` begins a group, `case NAME` a case of it,
//! and each line of a case is a keyword and its value. Empty lines and lines that begin with `#` don't count. Anything
//! else is an error, because a line that is passed over is a case that holds nothing.

/// One file, and the groups that have to be in it.
pub struct CaseFile {
    /// The text of the file.
    pub text: &'static str,
    /// The keywords with which the lines of a case may begin.
    pub keywords: &'static [&'static str],
    /// The groups in order, each with the number of its cases, so that none is lost.
    pub groups: &'static [(&'static str, usize)],
}

/// One case as it was written.
#[derive(Debug)]
pub struct WrittenCase {
    /// The subject of the case.
    pub name: &'static str,
    lines: Vec<(&'static str, &'static str)>,
}

impl CaseFile {
    /// The cases of one group.
    pub fn group(&self, name: &str) -> Vec<WrittenCase> {
        let groups = self.parse().unwrap_or_else(|error| panic!("{error}"));
        let mut groups = self.groups.iter().zip(groups);
        let found = groups.find(|((candidate, _), _)| *candidate == name);
        found.unwrap_or_else(|| panic!("no group {name:?}")).1
    }

    /// The cases of each group, or the fault of the file.
    pub fn parse(&self) -> Result<Vec<Vec<WrittenCase>>, String> {
        if !self.text.starts_with("# ") {
            return Err("nothing says how to read this file".to_owned());
        }
        let mut groups: Vec<(&str, Vec<WrittenCase>)> = Vec::new();
        for (number, line) in (1..).zip(self.text.lines()) {
            let wrong = |what: &str| Err(format!("line {number}: {what}: {line:?}"));
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((keyword, value)) = line.split_once(' ') else {
                return wrong("no value");
            };
            let group = groups.last_mut().map(|(_, cases)| cases);
            match (keyword, group) {
                ("group", _) => groups.push((value, Vec::new())),
                ("case", Some(cases)) => cases.push(WrittenCase {
                    name: value,
                    lines: Vec::new(),
                }),
                (_, Some(cases)) if self.keywords.contains(&keyword) => match cases.last_mut() {
                    Some(case) => case.lines.push((keyword, value)),
                    None => return wrong("outside of a case"),
                },
                (_, Some(_)) => return wrong("unknown"),
                (_, None) => return wrong("outside of a group"),
            }
        }
        let found = groups.iter().map(|(name, cases)| (*name, cases.len()));
        let found: Vec<_> = found.collect();
        let empty = found.is_empty() || found.iter().any(|(_, cases)| *cases == 0);
        if empty || found != self.groups {
            return Err(format!("cases found: {found:?}, not {:?}", self.groups));
        }
        Ok(groups.into_iter().map(|(_, cases)| cases).collect())
    }
}

impl WrittenCase {
    /// The value of the one line with this keyword.
    pub fn value(&self, keyword: &str) -> &'static str {
        let values = self.values(keyword);
        let [value] = values[..] else {
            panic!("{}: one {keyword}, not {values:?}", self.name);
        };
        value
    }

    /// The values of the lines with this keyword, one at least, in order.
    pub fn values(&self, keyword: &str) -> Vec<&'static str> {
        let lines = self.lines.iter().filter(|(found, _)| *found == keyword);
        let values: Vec<_> = lines.map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "{}: no {keyword}", self.name);
        values
    }

    /// The lines with this keyword as the bytes that their escapes stand for, in one piece.
    pub fn bytes(&self, keyword: &str) -> Vec<u8> {
        let lines = self.values(keyword).into_iter();
        lines.flat_map(unescaped).collect()
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let escaped = (byte == b'\\').then(|| rest.next());
        bytes.push(match escaped {
            None => byte,
            Some(Some(b'r')) => b'\r',
            Some(Some(b'n')) => b'\n',
            Some(Some(b't')) => b'\t',
            Some(Some(same @ (b'\\' | b'"'))) => same,
            Some(_) => panic!("an escape that isn't one in {text:?}"),
        });
    }
    bytes
}

/// Bytes as pairs of hex digits.
pub fn hex(digits: &str) -> Vec<u8> {
    assert!(
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "not hex: {digits:?}"
    );
    assert!(digits.len().is_multiple_of(2), "half a byte: {digits:?}");
    let starts = (0..digits.len()).step_by(2);
    let byte = |start| u8::from_str_radix(&digits[start..start + 2], 16);
    starts
        .map(|start| byte(start).expect("two digits"))
        .collect()
}
