//! Texts that come again and again, and what was made of them at first sight.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// What was made of each text that has come so far, by a number that counts from 0. Users choose some of the texts (the
/// TRES of a job), hence the seeded hash: nobody can aim at one bucket.
#[derive(Debug)]
pub(super) struct Known<T> {
    numbers: HashTable<u32>,
    hasher: RandomState,
    bytes: Vec<u8>,
    /// Where each text ends in `bytes`.
    ends: Vec<u32>,
    made: Vec<T>,
}

impl<T> Known<T> {
    pub fn new() -> Self {
        Known {
            numbers: HashTable::new(),
            hasher: RandomState::default(),
            bytes: Vec::new(),
            ends: Vec::new(),
            made: Vec::new(),
        }
    }

    /// The number of `text`; `make` makes its value when it is new.
    #[inline]
    pub fn number(&mut self, text: &[u8], make: impl FnOnce(&[u8]) -> T) -> u32 {
        let hash = self.hasher.hash_one(text);
        let (bytes, ends) = (&self.bytes, &self.ends);
        match self.numbers.find(hash, |number| text_of(bytes, ends, *number) == text) {
            Some(number) => *number,
            None => self.add(text, hash, make(text)),
        }
    }

    /// The value of a number.
    #[inline]
    pub fn get(&self, number: u32) -> &T {
        &self.made[number as usize]
    }

    /// What was made of `text`, now or before.
    #[inline]
    pub fn made(&mut self, text: &[u8], make: impl FnOnce(&[u8]) -> T) -> &T {
        let number = self.number(text, make);
        self.get(number)
    }

    /// Each text with its value, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        (0..).zip(&self.made).map(|(number, value)| (text_of(&self.bytes, &self.ends, number), value))
    }

    #[cold]
    fn add(&mut self, text: &[u8], hash: u64, value: T) -> u32 {
        let number =
            u32::try_from(self.made.len()).expect("texts are forgotten long before there are so many");
        self.bytes.extend_from_slice(text);
        self.ends
            .push(u32::try_from(self.bytes.len()).expect("texts are forgotten long before they are so long"));
        self.made.push(value);
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        self.numbers.insert_unique(hash, number, |number| hasher.hash_one(text_of(bytes, ends, *number)));
        number
    }

    /// Forgets all of them when they take more than their room, so that texts that never come again do not pile up. Numbers
    /// given before mean nothing after it.
    pub fn forget_if_many(&mut self, texts_max: usize, bytes_max: usize) {
        if self.made.len() > texts_max || self.bytes.len() > bytes_max {
            *self = Known::new();
        }
    }
}

#[inline]
fn text_of<'a>(bytes: &'a [u8], ends: &[u32], number: u32) -> &'a [u8] {
    let from = if number == 0 { 0 } else { ends[number as usize - 1] };
    &bytes[from as usize..ends[number as usize] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_number_and_one_value_however_many_there_are() {
        let mut known = Known::new();
        for round in 0..3 {
            for n in 0..5000_u32 {
                let text = "x".repeat((n % 7) as usize) + &n.to_string();
                let number = known.number(text.as_bytes(), |_| (round, n));
                assert_eq!((number, *known.get(number)), (n, (0, n)));
            }
        }
        assert_eq!(known.number(b"", |_| (9, 9)), 5000);
        assert_eq!(known.made.len(), 5001);
    }

    #[test]
    fn texts_are_forgotten_when_there_are_too_many_or_they_are_too_long() {
        let mut known = Known::new();
        known.number(b"one", |_| 1);
        known.forget_if_many(1, 3);
        assert_eq!(known.made.len(), 1);
        known.number(b"two", |_| 2);
        known.forget_if_many(1, 100);
        assert_eq!(known.made.len(), 0);
        known.number(b"long", |_| 3);
        known.forget_if_many(1, 3);
        assert_eq!(known.made.len(), 0);
    }
}
