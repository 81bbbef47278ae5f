//! Stream sockets that carry descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg, sockopt,
};

/// Descriptors that may travel together.
pub const MAX_FDS: usize = 72;

/// Whether `fd` is a stream socket.
pub fn is_stream(fd: impl AsFd) -> bool {
    matches!(sockopt::socket_type(fd), Ok(SocketType::STREAM))
}

/// Sends some of `bytes`, with `fds` (at most [`MAX_FDS`]) on the first of them; returns how many
/// went. `bytes` must not be empty: descriptors need a byte to travel with. A closed peer is an
/// error, not a signal.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // The space is rounded up and may hold one more than it was asked for.
    if fds.len() > MAX_FDS || !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} descriptors; at most {MAX_FDS} travel together",
                fds.len()
            ),
        ));
    }
    loop {
        match sendmsg(
            &socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// Sends all of `bytes` over a blocking socket, with `fds` on the first of them.
pub fn send_all(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let (mut at, mut fds) = (0, fds);
    while at < bytes.len() {
        match send(&socket, &bytes[at..], fds)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => at += sent,
        }
        fds = &[];
    }
    Ok(())
}

/// Receives into `buffer` and appends the descriptors that came along to `fds`, closed on `exec`; 0
/// bytes is the end. Fails when more than [`MAX_FDS`] came at once: those that did not fit are
/// lost.
pub fn recv(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(
            &socket,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            got => break got?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("more than {MAX_FDS} descriptors came at once"),
        ));
    }
    Ok(got.bytes)
}

/// The groups of the process at the other end of a local socket, as they were when it connected
/// (`SO_PEERGROUPS`, unix(7)): the supplementary ones, of which its own may be one.
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 32];
    loop {
        let mut bytes =
            libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `bytes` bytes, which are the vector's own, and any
        // bytes are valid `u32`s.
        let result = unsafe {
            let to = groups.as_mut_ptr().cast();
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                to,
                &mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Too many; now it has said how many.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_with_the_first_byte_and_close_on_exec() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"weights").unwrap();
        send_all(&a, b"hello", &[file.as_fd()]).unwrap();

        let (mut fds, mut byte) = (vec![], [0; 1]);
        assert_eq!(recv(&b, &mut byte, &mut fds).unwrap(), 1);
        assert_eq!((byte, fds.len()), (*b"h", 1));
        assert!(
            rustix::io::fcntl_getfd(&fds[0])
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        let mut received = std::fs::File::from(fds.remove(0));
        let mut text = String::new();
        received.rewind().unwrap();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "weights");

        let mut rest = [0; 8];
        assert_eq!(recv(&b, &mut rest, &mut fds).unwrap(), 4);
        assert!(fds.is_empty());
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (a, _b) = UnixStream::pair().unwrap();
        let many = vec![a.as_fd(); MAX_FDS + 1];
        assert_eq!(
            send(&a, b"x", &many).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn a_closed_peer_is_an_end_for_the_reader_and_an_error_for_the_writer() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(b);
        assert_eq!(recv(&a, &mut [0; 4], &mut vec![]).unwrap(), 0);
        assert_eq!(
            send_all(&a, b"x", &[]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn the_peers_groups_are_this_process_own() {
        let (a, _b) = UnixStream::pair().unwrap();
        let own: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .iter()
            .map(|group| group.as_raw())
            .collect();
        assert_eq!(peer_groups(&a).unwrap(), own);
        assert!(peer_groups(tempfile::tempfile().unwrap()).is_err());
    }

    #[test]
    fn only_stream_sockets_count() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(is_stream(&a));
        assert!(!is_stream(tempfile::tempfile().unwrap()));
    }
}
