//! Whole numbers from digits, eight digits at a time.

/// The number that `field` writes in digits and nothing else; `None` for anything else and for what 64 bits cannot hold.
#[inline]
pub(super) fn whole(field: &[u8]) -> Option<u64> {
    match field.len() {
        1..=8 => few(field),
        10 => ten(field),
        9..=16 => {
            let (high, low) = field.split_at(field.len() - 8);
            Some(few(high)? * 100_000_000 + few(low)?)
        }
        _ => many(field),
    }
}

/// Any number of digits, none included.
#[cold]
fn many(field: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let (first, rest) = field.split_first()?;
    rest.iter().try_fold(digit(first)?, |sum, byte| sum.checked_mul(10)?.checked_add(digit(byte)?))
}

/// Ten digits: an instant of our time.
#[inline]
fn ten(field: &[u8]) -> Option<u64> {
    let (high, low) = field.split_first_chunk::<2>()?;
    let [tens, ones] = high.map(|byte| byte.wrapping_sub(b'0'));
    if tens > 9 || ones > 9 {
        return None;
    }
    Some(u64::from(tens * 10 + ones) * 100_000_000 + eight(u64::from_le_bytes(low.try_into().ok()?))?)
}

/// One to eight digits.
#[inline]
fn few(field: &[u8]) -> Option<u64> {
    let length = field.len();
    let quad = |at: usize| {
        field.get(at..at + 4)?.try_into().ok().map(|four: [u8; 4]| u64::from(u32::from_le_bytes(four)))
    };
    // The digits in the order of the text, from the lowest byte up, behind zeroes that fill up to eight.
    let word = if length >= 4 {
        (quad(0)? << (8 * (8 - length))) | (quad(length - 4)? << 32)
    } else {
        let [first, middle, last] = [field[0], field[length / 2], field[length - 1]].map(u64::from);
        (first << (8 * (8 - length))) | (middle << (8 * (8 - length + length / 2))) | (last << 56)
    };
    let zeroes = 0x3030_3030_3030_3030;
    eight(if length == 8 { word } else { word | (zeroes >> (8 * length)) })
}

/// The number of eight digits, the first of them in the lowest byte.
#[inline]
fn eight(word: u64) -> Option<u64> {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let above_nine = word.wrapping_add(0x0606_0606_0606_0606);
    if (word & HIGH) | ((above_nine & HIGH) >> 4) != 0x3333_3333_3333_3333 {
        return None;
    }
    let digits = word & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the standard library makes of it, which also takes a sign.
    fn plainly(field: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(field).ok()?;
        if text.starts_with('+') { None } else { text.parse().ok() }
    }

    #[test]
    fn numbers_of_every_length_are_read_and_nothing_else_is() {
        for length in 1..=24 {
            for text in ["9".repeat(length), format!("1{}", "0".repeat(length - 1)), "0".repeat(length)] {
                assert_eq!(whole(text.as_bytes()), plainly(text.as_bytes()), "{text}");
            }
        }
        for text in ["", "+1", "-1", " 1", "1 ", "0x1", "1e3", "18446744073709551616", "1_000"] {
            assert_eq!(whole(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(whole(b"18446744073709551615"), Some(u64::MAX));
        for byte in 0..=u8::MAX {
            for (length, at) in (1..=17).flat_map(|length| (0..length).map(move |at| (length, at))) {
                let mut text = vec![b'7'; length];
                text[at] = byte;
                assert_eq!(whole(&text), plainly(&text), "{text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_number_is_read(number: u64) {
            prop_assert_eq!(whole(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn all_bytes_are_read_as_the_standard_library_reads_them(bytes in prop::collection::vec(b'.'..b'=', 0..22)) {
            prop_assert_eq!(whole(&bytes), plainly(&bytes));
        }
    }
}
