//! Files that come as descriptors.

use std::fs::File;
use std::iter::repeat_n;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::charge::Charge;
use super::error::BusError;
use crate::attachments::aside;

/// The files, in order. Their bytes are charged before they are read. Only what has an end and can
/// be read at any place is taken: a pipe could keep the daemon waiting.
///
/// # Errors
///
/// A descriptor that is no regular file or cannot be read, or more bytes than the request may have, or
/// no thread to read them.
pub async fn read(
    files: Vec<OwnedFd>,
    mut charge: Charge,
) -> Result<(Vec<Arc<[u8]>>, Charge), BusError> {
    if files.is_empty() {
        return Ok((vec![], charge));
    }
    let read = move || {
        let contents = files
            .into_iter()
            .enumerate()
            .map(|(i, file)| contents(i, &File::from(file), &mut charge))
            .collect::<Result<_, _>>()?;
        Ok((contents, charge))
    };
    // Not here: the disk under it may be slow.
    aside(read).await?
}

/// All of a file, as long as it was when it was looked at: what is added afterwards is not read,
/// and one that became shorter is an error.
fn contents(number: usize, file: &File, charge: &mut Charge) -> Result<Arc<[u8]>, BusError> {
    let wrong = |text: &str| BusError::InvalidRequest(format!("file {number} {text}"));
    let metadata = file
        .metadata()
        .map_err(|error| wrong(&format!("cannot be looked at: {error}")))?;
    if !metadata.is_file() {
        return Err(wrong("is no file; pass a regular file or a memfd"));
    }
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    charge.take(length)?;
    // In place, so that there is no second copy.
    let mut bytes: Arc<[u8]> = repeat_n(0, length).collect();
    let room = Arc::get_mut(&mut bytes).ok_or_else(|| wrong("cannot be read"))?;
    file.read_exact_at(room, 0)
        .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::quota::Quota;
    use crate::chat::PrincipalId;
    use std::io::Write;

    fn charge(limit: u64) -> Charge {
        let quota = Quota::new(150, 150);
        Charge::new(quota.share(PrincipalId::User(7), false), limit)
    }

    fn file(bytes: &[u8]) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.into()
    }

    #[tokio::test]
    async fn files_are_read_in_order() {
        let files = vec![file(b"abc"), file(b""), file(b"d")];
        let (read, _) = super::read(files, charge(100)).await.unwrap();
        assert_eq!(read, [b"abc"[..].into(), [].into(), b"d"[..].into()]);
    }

    #[tokio::test]
    async fn what_has_no_end_or_is_too_large_is_refused() {
        let (pipe, _end) = std::io::pipe().unwrap();
        let refused = read(vec![pipe.into()], charge(100)).await.err().unwrap();
        assert!(
            matches!(&refused, BusError::InvalidRequest(text) if text.contains("file 0 is no file")),
            "{refused:?}"
        );
        let sixty = || file(&[0; 60]);
        assert!(read(vec![sixty()], charge(100)).await.is_ok());
        assert!(matches!(
            read(vec![sixty(), sixty()], charge(100)).await,
            Err(BusError::TooLarge(_))
        ));
        assert!(matches!(
            read(vec![sixty(), sixty(), sixty()], charge(1000)).await,
            Err(BusError::Busy(_))
        ));
    }

    #[tokio::test]
    async fn a_file_as_large_as_memory_is_refused_before_it_is_read() {
        let sparse = tempfile::tempfile().unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert!(matches!(
            read(vec![sparse.into()], charge(100)).await,
            Err(BusError::TooLarge(_))
        ));
    }
}
