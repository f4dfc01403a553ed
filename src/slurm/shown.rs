//! Which keys an answer has shown in the batches before: exact, at four bytes a key.

/// Keys of the batches before, in the order of each batch.
#[derive(Debug, Default)]
pub(super) struct Shown {
    batches: Vec<Vec<Stretch>>,
}

/// Keys in ascending order that lie less than 2^32 apart from the first.
#[derive(Debug)]
struct Stretch {
    base: u64,
    offsets: Box<[u32]>,
}

impl Stretch {
    fn last(&self) -> u64 {
        self.base + self.offsets.last().map_or(0, |offset| u64::from(*offset))
    }

    /// The first key that is among `keys` as well; both are in order.
    fn shared(&self, keys: &[u64]) -> Option<u64> {
        let from = keys.partition_point(|key| *key < self.base);
        let until = keys.partition_point(|key| *key <= self.last());
        let mut offsets = self.offsets.iter().map(|offset| self.base + u64::from(*offset)).peekable();
        keys[from..until].iter().copied().find(|key| {
            while offsets.next_if(|known| known < key).is_some() {}
            offsets.peek() == Some(key)
        })
    }
}

impl Shown {
    /// Adds the keys of a batch, in any order; one that a batch before had already, or that is in this one twice.
    pub fn add(&mut self, mut keys: Vec<u64>) -> Option<u64> {
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Some(twice[0]);
        }
        let before = self.batches.iter().flatten();
        let (first, last) = (*keys.first()?, *keys.last()?);
        let near = before.filter(|stretch| stretch.base <= last && first <= stretch.last());
        let repeated = near.filter_map(|stretch| stretch.shared(&keys)).min();
        let stretches = keys.chunk_by(|one, other| one >> 32 == other >> 32).map(|part| Stretch {
            base: part[0],
            offsets: part.iter().map(|key| (key - part[0]) as u32).collect(),
        });
        self.batches.push(stretches.collect());
        repeated
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_repeated_when_a_batch_before_or_its_own_has_it(
            batches in prop::collection::vec(prop::collection::vec(
                prop_oneof![0..400_u64, any::<u64>(), (0..20_u64).prop_map(|n| n << 30)], 0..40), 0..6),
        ) {
            let (mut shown, mut plainly) = (Shown::default(), BTreeSet::new());
            for batch in batches {
                let repeated = batch.iter().any(|key| !plainly.insert(*key));
                let found = shown.add(batch.clone());
                prop_assert_eq!(found.is_some(), repeated);
                prop_assert!(found.is_none_or(|key| batch.contains(&key)));
                if repeated {
                    return Ok(());
                }
            }
        }
    }
}
