//! Where fields and rows end: one pass over the bytes, 64 at a time.
//!
//! It knows no meaning. A row is what lies before a newline; its fields end at the separators in it and at the newline.

use wide::u8x16;

/// Text looked at in one step: its marks stay in the first-level cache until the rows have been read.
const STEP_BYTES: usize = 16 << 10;

/// Marks of a block that are written in one go; most blocks of sacct's text have no more.
const WRITE_AHEAD: usize = 8;

/// Ends of the fields of some text. Kept and used again: it holds memory for the longest text it has seen.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Where fields end: separators and newlines, in order.
    ends: Vec<u32>,
    /// For each row, how many of the ends are its own or come before.
    rows: Vec<u32>,
}

/// A row and the ends of its fields, the newline last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    /// The row without its newline.
    pub text: &'a [u8],
    /// Where its fields end, counted from `origin`.
    ends: &'a [u32],
    /// Where the row begins.
    origin: u32,
}

impl<'a> Row<'a> {
    /// Exactly `N` fields, or nothing.
    #[inline]
    pub fn fields<const N: usize>(self) -> Option<[&'a [u8]; N]> {
        let ends: &[u32; N] = self.ends.try_into().ok()?;
        let mut from = 0;
        let mut found = [&self.text[..0]; N];
        for (field, end) in found.iter_mut().zip(ends) {
            let until = (end - self.origin) as usize;
            *field = self.text.get(from..until)?;
            from = until + 1;
        }
        Some(found)
    }
}

impl Marks {
    /// Calls `f` with every row of `text`, which ends with a newline or is empty.
    pub fn each_row(&mut self, text: &[u8], separator: u8, mut f: impl FnMut(Row<'_>)) {
        let mut rest = text;
        while !rest.is_empty() {
            let step = match memchr::memrchr(b'\n', &rest[..rest.len().min(STEP_BYTES)]) {
                Some(newline) => newline + 1,
                None => memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1),
            };
            let (now, later) = rest.split_at(step);
            self.find(now, separator);
            let (mut first, mut origin) = (0, 0);
            for until in &self.rows {
                let ends = &self.ends[first as usize..*until as usize];
                let newline = self.ends[*until as usize - 1];
                f(Row { text: &now[origin as usize..newline as usize], ends, origin });
                (first, origin) = (*until, newline + 1);
            }
            rest = later;
        }
    }

    /// Finds all ends in `text`, which is shorter than 4 GiB.
    fn find(&mut self, text: &[u8], separator: u8) {
        self.rows.clear();
        let (blocks, rest) = text.as_chunks::<64>();
        let mut last = [0; 64];
        last[..rest.len()].copy_from_slice(rest);
        // A byte beyond the text that looks like a separator comes after the last newline and belongs to no row.
        let blocks = blocks.iter().chain((!rest.is_empty()).then_some(&last));
        let (separators, newlines) = (u8x16::splat(separator), u8x16::splat(b'\n'));
        let mut count = 0;
        for (number, block) in blocks.enumerate() {
            let (mut any, mut newline) = (0_u64, 0_u64);
            for (lane, bytes) in block.as_chunks::<16>().0.iter().enumerate() {
                let bytes = u8x16::new(*bytes);
                let line_ends = bytes.simd_eq(newlines);
                newline |= u64::from(line_ends.to_bitmask()) << (16 * lane);
                any |= u64::from((line_ends | bytes.simd_eq(separators)).to_bitmask()) << (16 * lane);
            }
            self.note(&mut count, number as u32 * 64, any, newline);
        }
    }

    /// Notes the marks of one block of 64 bytes that begins at `at`.
    #[inline]
    fn note(&mut self, count: &mut usize, at: u32, mut any: u64, mut newline: u64) {
        while newline != 0 {
            let upto = u64::MAX >> (63 - newline.trailing_zeros());
            self.rows.push(*count as u32 + (any & upto).count_ones());
            newline &= newline - 1;
        }
        if self.ends.len() < *count + 64 {
            self.ends.resize((*count + 64) * 2, 0);
        }
        let many = any.count_ones() as usize;
        let room = &mut self.ends[*count..*count + 64];
        // A block with few marks, the usual one, takes the first turn alone, without a jump that depends on how many.
        for turn in room.chunks_exact_mut(WRITE_AHEAD) {
            for end in turn {
                *end = at + any.trailing_zeros();
                any &= any.wrapping_sub(1);
            }
            if any == 0 {
                break;
            }
        }
        *count += many;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The fields of every row, cut up in the plainest way.
    fn plainly(text: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let rows = text.split_inclusive(|byte| *byte == b'\n').filter_map(|row| row.strip_suffix(b"\n"));
        rows.map(|row| row.split(|byte| *byte == 0x1f).map(<[u8]>::to_vec).collect()).collect()
    }

    fn marked(text: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut rows = Vec::new();
        Marks::default().each_row(text, 0x1f, |row| {
            let mut from = 0;
            let field = |end: &u32| {
                let until = (end - row.origin) as usize;
                let field = row.text[from..until].to_vec();
                from = until + 1;
                field
            };
            rows.push(row.ends.iter().map(field).collect());
        });
        rows
    }

    proptest! {
        #[test]
        fn fields_and_rows_end_where_they_end(
            text in prop::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(0x1f), 1 => Just(b'\n'), 1 => any::<u8>()], 0..700),
        ) {
            let mut text = text;
            text.push(b'\n');
            prop_assert_eq!(marked(&text), plainly(&text));
        }
    }

    #[test]
    fn rows_longer_and_shorter_than_a_step_are_found_whole() {
        for length in [STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES] {
            let mut text = vec![b'x'; length];
            text.extend_from_slice(b"\x1f\n\na\x1fb\n");
            let text = text.repeat(3);
            assert_eq!(marked(&text), plainly(&text), "{length}");
        }
    }

    #[test]
    fn only_a_row_of_so_many_fields_has_fields() {
        let mut found = Vec::new();
        Marks::default().each_row(b"a|b\na\na|b|c\n|\n", b'|', |row| {
            found.push(row.fields::<2>().map(|[one, two]| (one.to_vec(), two.to_vec())));
        });
        let ab = Some((b"a".to_vec(), b"b".to_vec()));
        assert_eq!(found, [ab, None, None, Some((Vec::new(), Vec::new()))]);
    }
}
