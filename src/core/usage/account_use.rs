//! What the users of one account used in a window, in one piece of bytes: a site of 100,000 associations has as many amounts
//! for each period, in memory and in the store.
//!
//! ```text
//! version (1)
//! number of TRES, each name: length, text           ascending, each with an amount somewhere
//! number of users, each: length, name, one amount per TRES   ascending, each with an amount somewhere
//! ```
//!
//! Numbers have seven bits to a byte, the lowest first, in as few bytes as they need. One use has one form, so that equal
//! ones are equal bytes. Bytes of any other form are no use: [`AccountUse::read`] refuses them.

use std::collections::BTreeMap;

use crate::core::tres::Tres;

/// First byte of the form described above.
const VERSION: u8 = 1;

/// Longest name of a user, in bytes, and most TRES: bounds what broken bytes may ask for.
const NAME_BYTES_MAX: u128 = 1 << 20;

/// Amounts from here on are negative ones: what is taken off comes as the complement of what was added.
const NEGATIVE: u128 = 1 << 127;

/// TRES-seconds of every user of one account, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountUse {
    bytes: Box<[u8]>,
    /// What all users used, one amount for each TRES: added up while the bytes are looked through anyway.
    sums: Box<[u128]>,
}

/// Bytes that are not the use of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not the use of an account: {0}")]
pub struct BrokenUse(&'static str);

/// What the sum of a use and changes of it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// This.
    Use(AccountUse),
    /// Nothing any more.
    Nothing,
    /// Less than nothing: the use was not what the changes were made to.
    Negative,
}

impl AccountUse {
    /// Checks bytes that [`AccountUse::bytes`] gave once.
    ///
    /// # Errors
    /// When they have any other form.
    pub fn read(bytes: &[u8]) -> Result<AccountUse, BrokenUse> {
        let mut reader = Reader::begin(bytes)?;
        let mut last: Option<&str> = None;
        let mut sums = vec![0u128; reader.tres.len()];
        let mut amounts = Vec::with_capacity(reader.tres.len());
        while let Some(user) = reader.next(&mut amounts)? {
            if last.is_some_and(|last| last >= user) {
                return Err(BrokenUse("its users are not in order"));
            }
            if amounts.iter().all(|amount| *amount == 0) {
                return Err(BrokenUse("a user has no amount"));
            }
            for (sum, amount) in sums.iter_mut().zip(&amounts) {
                *sum = sum.checked_add(*amount).ok_or(BrokenUse("its amounts are too large"))?;
            }
            last = Some(user);
        }
        if sums.is_empty() || sums.contains(&0) {
            return Err(BrokenUse("a TRES has no amount"));
        }
        if !reader.rest.is_empty() {
            return Err(BrokenUse("something follows"));
        }
        Ok(AccountUse { bytes: bytes.into(), sums: sums.into() })
    }

    /// What [`AccountUse::read`] reads.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Names of the TRES, in the order of the amounts.
    pub fn tres(&self) -> Vec<&str> {
        self.reader().tres
    }

    /// Every user with an amount for each of [`AccountUse::tres`], by name.
    pub fn each_user<'u>(&'u self, mut f: impl FnMut(&'u str, &[u128])) {
        let mut reader = self.reader();
        let mut amounts = Vec::with_capacity(reader.tres.len());
        while let Some(user) = reader.next(&mut amounts).expect(CHECKED) {
            f(user, &amounts);
        }
    }

    /// The sum of what is known and of amounts of users for each of `tres`. What is to be taken off comes as its complement
    /// (`0u128.wrapping_sub(amount)`).
    pub fn changed<'u>(
        known: Option<&'u AccountUse>,
        tres: &[&'u str],
        more: impl Iterator<Item = (&'u str, &'u [u128])>,
    ) -> Changed {
        let mut names: Vec<&str> = known.map(AccountUse::tres).unwrap_or_default();
        let places: Vec<usize> = tres.iter().map(|name| place_of(&mut names, name)).collect();
        let mut users: BTreeMap<&str, Vec<u128>> = BTreeMap::new();
        if let Some(known) = known {
            known.each_user(|user, amounts| {
                let mut sums = amounts.to_vec();
                sums.resize(names.len(), 0);
                users.insert(user, sums);
            });
        }
        for (user, amounts) in more {
            let sums = users.entry(user).or_insert_with(|| vec![0; names.len()]);
            for (place, amount) in places.iter().zip(amounts) {
                sums[*place] = sums[*place].wrapping_add(*amount);
            }
        }
        users.retain(|_, sums| sums.iter().any(|sum| *sum > 0));
        match users.values().flatten().max() {
            None => Changed::Nothing,
            Some(most) if *most >= NEGATIVE => Changed::Negative,
            Some(_) => Changed::Use(pack(&names, &users)),
        }
    }

    fn reader(&self) -> Reader<'_> {
        Reader::begin(&self.bytes).expect(CHECKED)
    }
}

/// Why bytes that are kept here can be read.
const CHECKED: &str = "a use was checked when it was read, or made here";

/// The place of a name, which is added where it is not known.
fn place_of<'n>(names: &mut Vec<&'n str>, name: &'n str) -> usize {
    names.iter().position(|known| *known == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    })
}

fn pack(names: &[&str], users: &BTreeMap<&str, Vec<u128>>) -> AccountUse {
    let is_used = |place: &usize| users.values().any(|sums| sums[*place] > 0);
    let mut places: Vec<usize> = (0..names.len()).filter(is_used).collect();
    places.sort_unstable_by_key(|place| names[*place]);
    let mut bytes = vec![VERSION];
    push_number(&mut bytes, places.len() as u128);
    places.iter().for_each(|place| push_text(&mut bytes, names[*place]));
    push_number(&mut bytes, users.len() as u128);
    for (user, sums) in users {
        push_text(&mut bytes, user);
        places.iter().for_each(|place| push_number(&mut bytes, sums[*place]));
    }
    let sum = |place: &usize| users.values().fold(0u128, |sum, amounts| sum.saturating_add(amounts[*place]));
    AccountUse { bytes: bytes.into(), sums: places.iter().map(sum).collect() }
}

/// Reads a use from its beginning to its end.
struct Reader<'b> {
    rest: &'b [u8],
    tres: Vec<&'b str>,
    /// Users that follow.
    users: u128,
}

impl<'b> Reader<'b> {
    fn begin(bytes: &'b [u8]) -> Result<Reader<'b>, BrokenUse> {
        let Some((&VERSION, rest)) = bytes.split_first() else {
            return Err(BrokenUse("its version is not known"));
        };
        let mut reader = Reader { rest, tres: Vec::new(), users: 0 };
        for _ in 0..reader.number()? {
            let name = reader.text()?;
            if reader.tres.last().is_some_and(|last| *last >= name) {
                return Err(BrokenUse("its TRES are not in order"));
            }
            reader.tres.push(name);
        }
        reader.users = reader.number()?;
        Ok(reader)
    }

    /// The next user, whose amounts take the place of `amounts`.
    fn next(&mut self, amounts: &mut Vec<u128>) -> Result<Option<&'b str>, BrokenUse> {
        if self.users == 0 {
            return Ok(None);
        }
        self.users -= 1;
        let user = self.text()?;
        amounts.clear();
        for _ in 0..self.tres.len() {
            amounts.push(self.number()?);
        }
        Ok(Some(user))
    }

    fn text(&mut self) -> Result<&'b str, BrokenUse> {
        let length = self.number()?;
        if length > NAME_BYTES_MAX || length as usize > self.rest.len() {
            return Err(BrokenUse("a name is cut off"));
        }
        let (text, rest) = self.rest.split_at(length as usize);
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| BrokenUse("a name is not UTF-8"))
    }

    fn number(&mut self) -> Result<u128, BrokenUse> {
        // Nearly all have room in 63 bits.
        let mut small = 0u64;
        for (place, byte) in self.rest.iter().take(9).enumerate() {
            small |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 && (*byte > 0 || place == 0) {
                self.rest = &self.rest[place + 1..];
                return Ok(small.into());
            }
        }
        self.large_number()
    }

    fn large_number(&mut self) -> Result<u128, BrokenUse> {
        let (mut number, mut shift) = (0u128, 0);
        loop {
            let (first, rest) = self.rest.split_first().ok_or(BrokenUse("a number is cut off"))?;
            self.rest = rest;
            let bits = u128::from(first & 0x7f);
            if shift > 126 || (bits << shift) >> shift != bits {
                return Err(BrokenUse("a number is too large"));
            }
            number |= bits << shift;
            if first & 0x80 == 0 {
                let is_short = bits > 0 || shift == 0;
                return is_short.then_some(number).ok_or(BrokenUse("a number is longer than it needs to be"));
            }
            shift += 7;
        }
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push_number(bytes, text.len() as u128);
    bytes.extend_from_slice(text.as_bytes());
}

fn push_number(bytes: &mut Vec<u8>, mut number: u128) {
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Names of TRES that were checked, by their places in sums over several accounts.
#[derive(Debug, Clone, Default)]
pub(super) struct TresPlaces(pub(super) Vec<Tres>);

impl TresPlaces {
    /// Adds the TRES of a use.
    pub(super) fn learn(&mut self, used: &AccountUse) -> Result<(), BrokenUse> {
        for name in used.tres() {
            if self.of(name).is_none() {
                self.0.push(Tres::parse(name).map_err(|_| BrokenUse("the name of a TRES is none"))?);
            }
        }
        Ok(())
    }

    /// The place of a name.
    pub(super) fn of(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| known.as_str() == name)
    }

    /// The places of the amounts of a use that was learned.
    pub(super) fn places(&self, used: &AccountUse) -> Vec<usize> {
        used.tres().into_iter().map(|name| self.of(name).expect("every use was learned")).collect()
    }

    /// Adds everything in a use that was learned to sums by place.
    pub(super) fn add(&self, used: &AccountUse, sum: &mut [u128]) {
        self.places(used).into_iter().zip(&used.sums).for_each(|(place, amount)| sum[place] += amount);
    }
}
