//! A file that is sent as a request's body, or in a form.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::{Method, Response};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::Value;
use url::form_urlencoded;

use super::bar::Bar;
use super::error::Error;
use super::http::{Http, Link};

/// Bytes that are sent at a time.
const PIECE: usize = 256 << 10;

/// Reads as it is asked: nothing else is to be done meanwhile.
struct FileBody {
    file: File,
    left: u64,
    bar: Bar,
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
                self.bar.add(count as u64);
                Ok(Frame::data(piece.into()))
            }
            Err(error) => Err(error),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A form with a file in it.
pub struct Form {
    boundary: String,
    body: Bytes,
}

impl Form {
    pub fn new(fields: &[(&str, &str)], file: &[u8]) -> Self {
        let mut random = [0; 16];
        // It cannot fail for so few bytes on a running system.
        let _ = getrandom(&mut random, GetRandomFlags::empty());
        let boundary = format!("gemmactl-{:032x}", u128::from_ne_bytes(random));
        let mut body = vec![];
        let mut part = |head: &str, value: &[u8]| {
            let head = format!("--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n");
            for bytes in [head.as_bytes(), value, b"\r\n"] {
                body.extend_from_slice(bytes);
            }
        };
        for (name, value) in fields {
            part(&format!("name=\"{name}\""), value.as_bytes());
        }
        part("name=\"file\"; filename=\"sound\"", file);
        body.extend(format!("--{boundary}--\r\n").bytes());
        Self {
            boundary,
            body: body.into(),
        }
    }
}

impl Http {
    /// Has a sound written down.
    pub(super) async fn send_form(&self, form: Form) -> Result<(Response<Incoming>, Link), Error> {
        let kind = format!("multipart/form-data; boundary={}", form.boundary);
        let body = Full::new(form.body).map_err(|never| match never {});
        self.send_body(
            Method::POST,
            "/v1/audio/transcriptions",
            &kind,
            body.boxed(),
        )
        .await
    }

    /// Sends a file to be taken into the model directory.
    pub(super) async fn upload(
        &self,
        folder: Option<&str>,
        name: &str,
        path: &Path,
        bar: &Bar,
    ) -> Result<Value, Error> {
        let opened = File::open(path).and_then(|file| {
            let left = file.metadata()?.len();
            bar.begin(left);
            let bar = bar.clone();
            Ok(FileBody { file, left, bar })
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
