//! A file that is sent as a request's body.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use serde_json::Value;
use url::form_urlencoded;

use super::error::Error;
use super::http::Http;

/// Bytes that are sent at a time.
const PIECE: usize = 256 << 10;

/// Reads as it is asked: nothing else is to be done meanwhile.
struct FileBody {
    file: File,
    left: u64,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE);
        let mut piece = vec![0; most];
        Poll::Ready(Some(match self.file.read(&mut piece) {
            Ok(0) => Err(io::Error::other("the file was made shorter meanwhile")),
            Ok(count) => {
                piece.truncate(count);
                self.left -= count as u64;
                Ok(Frame::data(piece.into()))
            }
            Err(error) => Err(error),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Http {
    /// Sends a file to be taken into the model directory.
    pub(super) async fn upload(
        &self,
        folder: Option<&str>,
        name: &str,
        path: &Path,
    ) -> Result<Value, Error> {
        let opened = File::open(path).and_then(|file| {
            let left = file.metadata()?.len();
            Ok(FileBody { file, left })
        });
        let body = opened.map_err(|cause| Error::File {
            path: path.to_owned(),
            cause,
        })?;
        let target = "/models/import?".to_owned();
        let start = target.len();
        let mut query = form_urlencoded::Serializer::for_suffix(target, start);
        query.append_pair("name", name);
        query.extend_pairs(folder.map(|folder| ("folder", folder)));
        let target = query.finish();
        let sent = self
            .send_body(
                Method::POST,
                &target,
                "application/octet-stream",
                body.boxed(),
            )
            .await?;
        self.read(sent).await
    }
}
