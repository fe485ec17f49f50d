//! The tags of a data set input as bytes: what a `Field::INPUT` register holds.
//!
//! Contract: `version u8 = 1`, then `count u32` times `key length u32, value length u32, key, value`, little-endian,
//! keys in byte order. A later version is refused as such, never misread.

use std::collections::BTreeMap;

use crate::error::Malformed;

const VERSION: u8 = 1;

/// The bytes of `tags`.
pub fn encode_input_tags(tags: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = vec![VERSION];
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&length(tags.len()));
    for (key, value) in tags {
        out.extend_from_slice(&length(key.len()));
        out.extend_from_slice(&length(value.len()));
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// The tags in `bytes`.
///
/// # Errors
/// [`Malformed`] with the place; never panics and never allocates past the bytes.
pub fn decode_input_tags(bytes: &[u8]) -> Result<BTreeMap<String, String>, Malformed> {
    let here = |rest: &[u8]| bytes.len() - rest.len();
    let Some((&VERSION, mut rest)) = bytes.split_first() else {
        let found = bytes.first().copied().unwrap_or(0);
        return Err(Malformed::new(0, "version 1 of input tags", found.into()));
    };
    let number = |rest: &mut &[u8]| -> Result<usize, Malformed> {
        let (word, after) =
            rest.split_first_chunk::<4>().ok_or(Malformed::new(here(rest), "a length of input tags", 0))?;
        *rest = after;
        Ok(usize::try_from(u32::from_le_bytes(*word)).unwrap_or(usize::MAX))
    };
    let text = |rest: &mut &[u8], length: usize| -> Result<String, Malformed> {
        let (taken, after) = rest.split_at_checked(length).ok_or(Malformed::new(
            here(rest),
            "an input tag within its record",
            length as u64,
        ))?;
        let text = std::str::from_utf8(taken).map_err(|_| Malformed::new(here(rest), "text in UTF-8", 0))?;
        *rest = after;
        Ok(text.to_owned())
    };
    let count = number(&mut rest)?;
    let mut tags = BTreeMap::new();
    for _ in 0..count {
        let (key_length, value_length) = (number(&mut rest)?, number(&mut rest)?);
        let key = text(&mut rest, key_length)?;
        tags.insert(key, text(&mut rest, value_length)?);
    }
    if !rest.is_empty() {
        return Err(Malformed::new(here(rest), "the end of input tags", rest.len() as u64));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_back_and_cuts_are_noticed() {
        let tags =
            BTreeMap::from([("mlflow.data.context".into(), "training".into()), ("".into(), "\u{e9}".into())]);
        let bytes = encode_input_tags(&tags);
        assert_eq!(decode_input_tags(&bytes).unwrap(), tags);
        for cut in 0..bytes.len() {
            assert!(decode_input_tags(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode_input_tags(&[2, 0, 0, 0, 0]).is_err(), "a later version");
        assert!(decode_input_tags(&[1, 255, 255, 255, 255]).is_err(), "a hostile count");
    }
}
