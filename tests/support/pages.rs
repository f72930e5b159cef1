//! The pages that operators read: README.md and the pages below docs/.

/// README.md.
pub const README: &str = include_str!("../../README.md");

/// docs/clients.md.
pub const CLIENTS: &str = include_str!("../../docs/clients.md");

/// docs/configuration.md.
pub const CONFIGURATION: &str = include_str!("../../docs/configuration.md");

/// docs/forwarding.md.
pub const FORWARDING: &str = include_str!("../../docs/forwarding.md");

/// docs/install.md.
pub const INSTALL: &str = include_str!("../../docs/install.md");

/// docs/operations.md.
pub const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// docs/runbook.md.
pub const RUNBOOK: &str = include_str!("../../docs/runbook.md");

/// Every page, by its path in the repository.
pub const PAGES: [(&str, &str); 11] = [
    ("README.md", README),
    ("docs/clients.md", CLIENTS),
    ("docs/configuration.md", CONFIGURATION),
    ("docs/forwarding.md", FORWARDING),
    ("docs/install.md", INSTALL),
    ("docs/operations.md", OPERATIONS),
    (
        "docs/performance.md",
        include_str!("../../docs/performance.md"),
    ),
    ("docs/reissue.md", include_str!("../../docs/reissue.md")),
    ("docs/replicas.md", include_str!("../../docs/replicas.md")),
    ("docs/runbook.md", RUNBOOK),
    ("docs/security.md", include_str!("../../docs/security.md")),
];

/// The fenced blocks of a language on all pages.
pub fn blocks(language: &str) -> Vec<&'static str> {
    let pages = PAGES.iter();
    pages
        .flat_map(|(_, page)| blocks_of(page, language))
        .collect()
}

/// The fenced blocks of a language on one page.
pub fn blocks_of<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (opening, after) = after.split_once('\n').unwrap();
        let (block, after) = after.split_once("\n```").unwrap();
        if opening == language {
            blocks.push(block);
        }
        rest = after;
    }
    blocks
}

/// The lines outside the fenced blocks.
pub fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    page.lines().filter(move |line| {
        let fence = line.starts_with("```");
        in_block ^= fence;
        !fence && !in_block
    })
}

/// The text below a heading, up to the next one of its level or above.
pub fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).expect(heading);
    let level = heading.split(' ').next().unwrap().len();
    let end = (1..=level).filter_map(|level| rest.find(&format!("\n{} ", "#".repeat(level))));
    &rest[..end.min().unwrap_or(rest.len())]
}
