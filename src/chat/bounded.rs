//! Lists that a worker sends, with a bound of their elements: an element takes a byte or two on the
//! channel and many times as much in memory, and a worker that was taken over sends what it likes.
//! Pure.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Elements that room is made for before they are there.
const AHEAD: usize = 64;

/// A list of `MOST` elements at most; for `deserialize_with`.
pub fn list<'de, const MOST: usize, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(List::<MOST, T>(PhantomData))
}

struct List<const MOST: usize, T>(PhantomData<T>);

impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for List<MOST, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let announced = elements.size_hint().unwrap_or_default();
        if announced > MOST {
            return Err(A::Error::invalid_length(announced, &self));
        }
        let mut list = Vec::with_capacity(announced.min(AHEAD));
        while let Some(element) = elements.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Short(#[serde(deserialize_with = "list::<3, _, _>")] Vec<u16>);

    #[test]
    fn a_list_has_its_bound_and_no_more() {
        for (list, fits) in [(vec![], true), (vec![1, 2, 3], true), (vec![1; 4], false)] {
            let bytes = postcard::to_stdvec(&Short(list.clone())).unwrap();
            assert_eq!(
                postcard::from_bytes(&bytes).ok(),
                fits.then_some(Short(list.clone()))
            );
            let json = serde_json::to_string(&list).unwrap();
            assert_eq!(
                serde_json::from_str(&json).ok(),
                fits.then_some(Short(list))
            );
        }
    }

    #[test]
    fn what_is_announced_is_refused_before_it_comes() {
        let refused = postcard::from_bytes::<Short>(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(refused.is_err());
    }
}
