//! Every link of the documentation leads somewhere: to a file that is there, and to a heading in it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::support::pages::{PAGES, prose};
use crate::support::source::root;

/// The anchor that a Markdown reader gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .replace(|c: char| !(c.is_alphanumeric() || " -_".contains(c)), "");
    kept.replace(' ', "-")
}

/// The anchors of a page.
pub(crate) fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim());
    let anchors: Vec<String> = titles.map(anchor).collect();
    let distinct: BTreeSet<String> = anchors.iter().cloned().collect();
    assert_eq!(
        distinct.len(),
        anchors.len(),
        "two headings with one anchor: {anchors:?}"
    );
    distinct
}

/// Where the links of a page lead.
fn links(page: &str) -> Vec<&str> {
    let text = prose(page).flat_map(|line| line.split("](").skip(1));
    text.map(|rest| rest.split(')').next().expect("a link's end"))
        .collect()
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(component);
        }
    }
    plain
}

#[test]
fn every_page_is_tested() {
    let directory = std::fs::read_dir(root().join("docs")).expect("docs/");
    let names = directory.map(|entry| entry.expect("an entry").file_name());
    // Beside the pages are the pictures that they show.
    let pages = names.filter(|name| Path::new(name).extension().is_none_or(|kind| kind != "svg"));
    let there: BTreeSet<String> = pages
        .map(|name| format!("docs/{}", name.to_string_lossy()))
        .collect();
    let tested = PAGES.iter().map(|(path, _)| (*path).to_owned());
    let tested: BTreeSet<String> = tested.filter(|path| path != "README.md").collect();
    assert_eq!(there, tested);
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_in_it() {
    let mut found = 0;
    for (path, page) in PAGES {
        for link in links(page) {
            if link.starts_with("https://") {
                continue;
            }
            found += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => PathBuf::from(path),
                file => plain(&Path::new(path).with_file_name(file)),
            };
            let at = root().join(&target);
            assert!(at.exists(), "{path}: {link}");
            if !heading.is_empty() {
                let text = std::fs::read_to_string(at).expect("a page");
                assert!(anchors(&text).contains(heading), "{path}: {link}");
            }
        }
    }
    assert!(found > 20, "{found}");
}

#[test]
fn readme_leads_to_every_page() {
    let (_, readme) = PAGES[0];
    let linked = links(readme);
    for (path, _) in &PAGES[1..] {
        assert!(linked.contains(path), "{path}");
    }
}
