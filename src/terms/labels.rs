//! Enums that are closed sets of label values: `labels!` writes each variant's value once.
//!
//! Keeps true: `ALL` holds every variant in the order of declaration, so `variant as usize` is its position in `ALL`.
//! Must not know: what is counted under a label.

/// Declares enums whose variants each stand for one text, with every variant in `ALL` and the text as `as_str`.
macro_rules! labels {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$documentation:meta])* $variant:ident => $value:literal,)+
        }
    )+) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $($(#[$documentation])* $variant,)+
        }

        impl $name {
            /// Every variant, in order of declaration.
            #[allow(dead_code, reason = "not every set is counted")]
            $visibility const ALL: [Self; [$($value),+].len()] = [$(Self::$variant),+];

            /// The text that stands for this variant in labels, logs and answers.
            $visibility fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)+
                }
            }
        }
    )+};
}

pub(crate) use labels;

#[cfg(test)]
mod tests {
    labels! {
        /// Three variants, two of which share a text.
        enum Letter {
            /// The first.
            Alpha => "a",
            /// Another first.
            Aleph => "a",
            /// The second.
            Beta => "b",
        }
    }

    #[test]
    fn every_label_stands_at_its_own_index() {
        for (position, letter) in Letter::ALL.into_iter().enumerate() {
            assert_eq!(letter as usize, position);
        }
        assert_eq!(Letter::ALL.map(Letter::as_str), ["a", "a", "b"]);
    }
}
