//! The text format, put in order: families by name, series without a holder left out. Pure.
//!
//! Keeps true: the buckets of a histogram stay in ascending order.
//! Must not know: which series have a holder.

use std::collections::BTreeMap;

/// A metrics page, split into families.
pub(crate) struct MetricsPage(BTreeMap<String, Block>);

#[derive(Default)]
struct Block {
    header: Vec<String>,
    samples: Vec<String>,
}

impl MetricsPage {
    /// Reads what the exporter or [`crate::telemetry::process`] wrote: `# HELP`, `# TYPE`, samples, family by family.
    pub(crate) fn parse(text: &str) -> Self {
        let mut page = Self(BTreeMap::new());
        page.add(text);
        page
    }

    /// Adds the families of another text.
    pub(crate) fn add(&mut self, text: &str) {
        let mut family = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                let name = comment.split(' ').nth(1).unwrap_or_default();
                if name != family {
                    name.clone_into(&mut family);
                }
                let block = self.0.entry(family.clone()).or_default();
                block.header.push(line.to_owned());
            } else if let Some(block) = self.0.get_mut(&family) {
                block.samples.push(line.to_owned());
            }
        }
    }

    /// Drops the samples with a label that `keep(label, value)` refuses, and families that lose all of theirs.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        for block in self.0.values_mut() {
            block
                .samples
                .retain(|sample| labels(sample).all(|(label, value)| keep(label, value)));
        }
        self.0.retain(|_, block| !block.samples.is_empty());
    }

    /// The page again, samples sorted. Those of one histogram series keep their order: their buckets ascend.
    pub(crate) fn into_text(self) -> String {
        let mut text = String::new();
        for (_, mut block) in self.0 {
            if block.header.iter().any(|line| line.ends_with(" histogram")) {
                block.samples.sort_by(|a, b| series(a).cmp(series(b)));
            } else {
                block.samples.sort_unstable();
            }
            for line in block.header.iter().chain(&block.samples) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// The labels of a histogram's sample but for the bucket's bound, which comes last.
fn series(sample: &str) -> &str {
    let labels = sample.split_once('{').map_or("", |(_, labels)| labels);
    if labels.starts_with("le=\"") {
        return "";
    }
    let end = labels.find(",le=\"").or_else(|| labels.find('}'));
    labels.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// The labels of a sample. Values hold no quote or backslash; one that did would end the iteration early.
fn labels(sample: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = sample.split_once('{').map_or("", |(_, rest)| rest);
    std::iter::from_fn(move || {
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        rest = after;
        Some((name.trim_start_matches(','), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_sorted_and_dead_series_left_out_with_their_header() {
        let mut page = MetricsPage::parse(
            "# HELP b second\n# TYPE b gauge\nb{server=\"x\"} 1\nb{role=\"r\",server=\"y\"} 2\n\n\
             # TYPE c gauge\nc{server=\"x\"} 3\n",
        );
        page.add("# HELP a first\n# TYPE a counter\na 4\n");
        page.retain(|label, value| label != "server" || value == "y");
        assert_eq!(
            page.into_text(),
            "# HELP a first\n# TYPE a counter\na 4\n# HELP b second\n# TYPE b gauge\nb{role=\"r\",server=\"y\"} 2\n"
        );
    }

    #[test]
    fn histograms_are_sorted_by_series_and_keep_their_buckets_in_ascending_order() {
        let of = |role: &str| {
            format!(
                "h_bucket{{role=\"{role}\",le=\"2.5\"}} 1\nh_bucket{{role=\"{role}\",le=\"10\"}} 1\n\
                 h_sum{{role=\"{role}\"}} 1\nh_count{{role=\"{role}\"}} 1\n"
            )
        };
        let text = |first, second| format!("# TYPE h histogram\n{}{}", of(first), of(second));
        assert_eq!(
            MetricsPage::parse(&text("b", "a")).into_text(),
            text("a", "b")
        );
    }
}
