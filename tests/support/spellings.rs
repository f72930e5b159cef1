//! Thousands of ways to write an owned path, and others that only look like one.

use std::collections::BTreeSet;

use renewd::http::target::OwnedPaths;

/// `routes.token` as it is by default.
pub const TOKEN: [&str; 2] = ["/api/live/token", "/api/live/agora-token"];
/// `routes.refresh` as it is by default.
pub const REFRESH: [&str; 2] = ["/api/live/refresh-token", "/refresh-token"];

/// The default routes, as the service classifies them.
pub fn owned_paths() -> OwnedPaths {
    let strings = |paths: &[&str]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    OwnedPaths::new(&strings(&TOKEN), &strings(&REFRESH))
}

/// Every target of the table, sorted, each once.
pub fn all_targets() -> BTreeSet<Vec<u8>> {
    let mut targets = BTreeSet::new();
    for path in TOKEN.into_iter().chain(REFRESH) {
        letter_cases(path, &mut targets);
        prefixes_and_suffixes(path, &mut targets);
        boundaries(path, &mut targets);
        characters(path, &mut targets);
        absolute_forms(path, &mut targets);
    }
    targets
}

fn letter_cases(path: &str, targets: &mut BTreeSet<Vec<u8>>) {
    targets.insert(path.to_uppercase().into_bytes());
    for position in 0..path.len() {
        let mut target = path.as_bytes().to_vec();
        target[position] = target[position].to_ascii_uppercase();
        targets.insert(target.clone());
        target.extend_from_slice(b"/");
        targets.insert(target);
    }
}

/// Written before an owned path, separated by blanks.
const PREFIXES: &str = r"/ // /// /. /./ /.. /x/.. /x/../ \ \\ /\ %2f /%2e /%2e%2e ; . * //host /http://x http: x: à
    //a@b //a@b:80 //a:c@b //a@b@c //a@ //@b ///a@b /a@b //a%40b \/a@b /\a@b \\a@b //a@b/ //a@b//c@d //a@b;x //a@b? //a@[::1]";

/// Written after an owned path, separated by blanks.
const SUFFIXES: &str = r#"/ // /// ? ?x=1 /? //? # #x /#x ?# #? ?x#y ?? ; ;x=1 . .. /. /./ /.. /../ /x /x/.. /x/y /../x /../../x /%2e%2e /%2e%2e/x /..%2f /..%2fx /x%2f.. /x%20y %2fx \x %20 %00 %2f %2F %5c
    %3f %23 %09 %0a %a0 %c2%a0 \ \\ /\ * : @ ! $ & ' ( ) + , = ~ | { } ^ ` " < > [ ] - _ % %2 %zz ?% ?\ ?/../x
    à ?à /?à //?à \?à #à ?@à /@à"#;

/// Written after an owned path: bytes that aren't UTF-8, blanks and controls, byte order marks and separators.
const RAW_SUFFIXES: [&[u8]; 18] = [
    b"\xa0",
    b"\xa0\xa0",
    b"/\xa0",
    b"?\xa0",
    b"\xc2\xa0",
    b"/\xc2\xa0",
    b"\xff",
    b"\x7f",
    b"\x01",
    b"\x0b",
    b"\x0c",
    b"\t",
    b"?\t",
    b"\x85",
    b"\xc2\x85",
    b"\xef\xbb\xbf",
    b"?\xef\xbb\xbf",
    b"?\xe2\x80\xa8",
];

fn prefixes_and_suffixes(path: &str, targets: &mut BTreeSet<Vec<u8>>) {
    targets.insert(path.into());
    for prefix in PREFIXES.split_ascii_whitespace() {
        for suffix in ["", "/", "?à", "#x", "?x"] {
            targets.insert(format!("{prefix}{path}{suffix}").into_bytes());
        }
    }
    let suffixes = SUFFIXES.split_ascii_whitespace().map(str::as_bytes);
    for suffix in suffixes.chain(RAW_SUFFIXES) {
        targets.insert([path.as_bytes(), suffix].concat());
        targets.insert([path.to_uppercase().as_bytes(), suffix].concat());
    }
}

/// Written in place of one slash, or of all, separated by blanks.
const BETWEEN: &str = r"// /// //// /./ /../ /x/../ /.// \ \\ /\ \/ %2f %2F /%2f %5c /%2e/ /%2e%2e/ /;/ ;/ /%20/ ?/ #/ //host/ /à/
    //a@b/ ///a@b/ //a@b// ///a@b// /a@b/ \\a@b/ /\\a@b/ //a@b:1/";

fn boundaries(path: &str, targets: &mut BTreeSet<Vec<u8>>) {
    let slashes: Vec<usize> = path
        .match_indices('/')
        .map(|(position, _)| position)
        .collect();
    for between in BETWEEN.split_ascii_whitespace() {
        for position in &slashes {
            let (before, after) = (&path[..*position], &path[*position + 1..]);
            for suffix in ["", "/", "?à"] {
                targets.insert(format!("{before}{between}{after}{suffix}").into_bytes());
            }
        }
        targets.insert(path.replace('/', between).into_bytes());
        let (first, interior) = path.split_at(1);
        targets.insert(format!("{first}{}", interior.replace('/', between)).into_bytes());
    }
}

fn characters(path: &str, targets: &mut BTreeSet<Vec<u8>>) {
    for (position, character) in path.char_indices() {
        let (before, after) = (&path[..position], &path[position + 1..]);
        let code = u32::from(character);
        let upper = u32::from(character.to_ascii_uppercase());
        for written in [
            format!("%{code:02x}"),
            format!("%{code:02X}"),
            format!("%{upper:02x}"),
            format!("%25{code:02x}"),
            format!("%u00{code:02x}"),
            format!("{character}%00"),
            format!("{character}\u{301}"),
        ] {
            targets.insert(format!("{before}{written}{after}").into_bytes());
        }
    }
    let everything: Vec<_> = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let everything = everything.concat();
    targets.insert(everything.clone().into_bytes());
    targets.insert(format!("/{everything}").into_bytes());
    // The long s and the Kelvin sign fold to ASCII letters in some regular expressions.
    targets.insert(path.replace('s', "\u{17f}").into_bytes());
    targets.insert(path.replace('k', "\u{212a}").into_bytes());
}

/// Separated by blanks, like the lists that follow.
const SCHEMES: &str = "http https HTTP ws ftp file javascript a+b.c-d x1";

/// Written in front of the path of an absolute form; an empty one is tried too.
const AUTHORITIES: &str = r"x X.example. x:80 x: x:y u@x u:p@x:1 u%20:p%2f@x @x u@ u@v@x [::1] [::1]:80 1.2.3.4
    x;y x'y x%2fy x_y x*y é x\y x|y x,y";

/// Between a scheme and a path.
const BEGINNINGS: &str =
    r": :/ :/// :////x :\\x ://x/ ://x//u@h ://x\ ://x? ://x# ://x?/ ://x/.. ://x%2f";

fn absolute_forms(path: &str, targets: &mut BTreeSet<Vec<u8>>) {
    for scheme in SCHEMES.split_ascii_whitespace() {
        for authority in AUTHORITIES.split_ascii_whitespace().chain([""]) {
            targets.insert(format!("{scheme}://{authority}{path}").into_bytes());
        }
        for tail in ["/", "?x", "#x", "/?x#y", "?à", "//", "%20"] {
            targets.insert(format!("{scheme}://x{path}{tail}").into_bytes());
        }
        for beginning in BEGINNINGS.split_ascii_whitespace() {
            targets.insert(format!("{scheme}{beginning}{path}").into_bytes());
            targets.insert(format!("{scheme}{beginning}{path}?à").into_bytes());
        }
        targets
            .insert(format!("{scheme}://x{}", path.replacen("/live/", "/live//", 1)).into_bytes());
        targets.insert(format!("{scheme}://x{}", path.to_uppercase()).into_bytes());
    }
}
