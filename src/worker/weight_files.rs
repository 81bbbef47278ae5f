//! The model's files as one: the bytes of each are counted on from those of the file before it, as the plan's layout has them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use crate::sys::residency::MappedFiles;

/// The file that a model lies in, or its parts in their order.
#[derive(Debug)]
pub struct WeightFiles(Vec<(File, Range<u64>)>);

impl WeightFiles {
    /// The next of `descriptors`, one for each of `sizes`.
    ///
    /// # Errors
    /// There are fewer, or there is none to be taken.
    pub fn take(
        sizes: &[u64],
        descriptors: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Self, String> {
        let mut end = 0u64;
        let files = sizes.iter().map(|bytes| {
            let file = descriptors
                .next()
                .ok_or("a descriptor of the model did not come with the plan")?;
            let start = end;
            end = end
                .checked_add(*bytes)
                .ok_or("the model's files are too large")?;
            Ok((File::from(file), start..end))
        });
        let files = files.collect::<Result<Vec<_>, &str>>()?;
        match files.is_empty() {
            true => Err("the plan has no file for the model".into()),
            false => Ok(Self(files)),
        }
    }

    /// One file.
    #[cfg(test)]
    pub fn one(file: File) -> Self {
        let bytes = file.metadata().expect("a file").len();
        Self(vec![(file, 0..bytes)])
    }

    /// They, in their order.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.0.iter().map(|(file, _)| file)
    }

    /// Where they are mapped.
    ///
    /// # Errors
    /// One cannot be looked at.
    pub fn mapped(&self) -> io::Result<MappedFiles> {
        MappedFiles::of(self.0.iter().map(|(file, place)| (file, place.clone())))
    }

    /// What each file has of a part of the whole, counted from the file's own start.
    pub fn pieces(&self, part: Range<u64>) -> impl Iterator<Item = (&File, Range<u64>)> {
        self.0.iter().filter_map(move |(file, place)| {
            let (start, end) = (part.start.max(place.start), part.end.min(place.end));
            (start < end).then(|| (file, start - place.start..end - place.start))
        })
    }

    /// The same files, with descriptors of their own.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn try_clone(&self) -> io::Result<Self> {
        let copies = self.0.iter().map(|(file, place)| {
            let copy = file.try_clone()?;
            Ok((copy, place.clone()))
        });
        Ok(Self(copies.collect::<io::Result<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptors(count: usize) -> std::vec::IntoIter<OwnedFd> {
        let files = (0..count).map(|_| tempfile::tempfile().unwrap().into());
        files.collect::<Vec<OwnedFd>>().into_iter()
    }

    #[test]
    fn bytes_are_counted_on_from_file_to_file() {
        let mut came = descriptors(4);
        let files = WeightFiles::take(&[100, 50, 1], &mut came).unwrap();
        assert_eq!(came.len(), 1);
        let pieces = |part: Range<u64>| {
            let pieces = files.pieces(part).map(|(_, own)| (own.start, own.end));
            pieces.collect::<Vec<_>>()
        };
        assert_eq!(pieces(10..20), [(10, 20)]);
        assert_eq!(pieces(100..150), [(0, 50)]);
        assert_eq!(pieces(90..151), [(90, 100), (0, 50), (0, 1)]);
        assert!(pieces(151..200).is_empty());
        for (sizes, count) in [(&[1, 2][..], 1), (&[], 1), (&[1, u64::MAX], 2)] {
            assert!(WeightFiles::take(sizes, &mut descriptors(count)).is_err());
        }
    }
}
