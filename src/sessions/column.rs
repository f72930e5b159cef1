//! A vector in small pieces of one size: a table of a million sessions has no room for doubling, nor time for copying,
//! and pieces that are all alike leave no holes in the allocator.
//!
//! Keeps true: every piece but the last is full; at most one piece is partly empty.

/// Elements in a piece. 16 links of 16 bytes fill one of mimalloc's sizes, 16 sessions of 88 bytes all but a
/// twelfth of one.
const PIECE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Column<T>(Vec<Vec<T>>);

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Column<T> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.0.get(index / PIECE)?.get(index % PIECE)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.0.get_mut(index / PIECE)?.get_mut(index % PIECE)
    }

    pub(super) fn push(&mut self, element: T) {
        match self.0.last_mut() {
            Some(last) if last.len() < PIECE => last.push(element),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(element);
                self.0.reserve_exact(1);
                self.0.push(piece);
            }
        }
    }

    /// Takes an element out; the last one takes its place.
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<T> {
        self.get(index)?;
        let piece = self.0.last_mut()?;
        let last = piece.pop()?;
        if piece.is_empty() {
            self.0.pop();
            self.0.shrink_to_fit();
        }
        match self.get_mut(index) {
            Some(place) => Some(std::mem::replace(place, last)),
            // It was the last one.
            None => Some(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_vector_holds(steps in prop::collection::vec(prop::option::of(0..60_usize), 0..200)) {
            let (mut column, mut vector) = (Column::default(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Some(index) if index < vector.len() => {
                        prop_assert_eq!(column.swap_remove(index), Some(vector.swap_remove(index)));
                    }
                    Some(index) => prop_assert_eq!(column.swap_remove(index), None),
                    None => {
                        column.push(number);
                        vector.push(number);
                    }
                }
                prop_assert!(column.iter().eq(&vector));
                prop_assert!(column.0.iter().all(|piece| !piece.is_empty() && piece.capacity() == PIECE));
            }
        }
    }
}
