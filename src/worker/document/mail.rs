//! Mails: who wrote to whom and when, the text, and what is attached, each by the rules for such a
//! file.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mail_parser::{Address, DateTime, Message, MessageParser, MimeHeaders, PartType};

use super::blocks::{Blocks, one_line};
use super::{Pages, html, of_kind};
use crate::ipc::kind::{self, Reader};
use crate::ipc::{DocumentKind, Sight};

/// Mails in mails.
const MAX_DEPTH: usize = 3;
/// Attachments that are read, of all mails in a file.
const MAX_ATTACHMENTS: usize = 32;
/// Characters of a header, and addresses in it.
const MAX_HEADER: usize = 1000;
const MAX_ADDRESSES: usize = 100;

pub fn read(bytes: &[u8], pages: &mut Pages<'_>) -> Result<u32, String> {
    let mail = MessageParser::default().parse(bytes);
    let mail = mail.ok_or("is a mail without anything in it, or a damaged one")?;
    let mut left = MAX_ATTACHMENTS;
    read_mail(&mail, 1, &mut left, pages)
}

fn read_mail(
    mail: &Message<'_>,
    depth: usize,
    left: &mut usize,
    pages: &mut Pages<'_>,
) -> Result<u32, String> {
    let mut out = Blocks::default();
    out.paragraph(&head(mail));
    out.paragraph(&body(mail)?);
    let mut attached = vec![];
    for part in mail.attachments() {
        let name = one_line(part.attachment_name().unwrap_or_default());
        if let PartType::InlineBinary(_) = part.body
            && part
                .content_type()
                .is_some_and(|kind| kind.ctype() == "image")
        {
            let mark = out.unseen("picture", &name);
            out.paragraph(&mark);
            continue;
        }
        attached.push((name, part));
    }
    let unseen = out.unseen > 0;
    let mut count = 1;
    if !pages.push(out.finish(), Sight::of_text(unseen)) {
        return Ok(count);
    }
    for (name, part) in attached {
        let name = if name.is_empty() {
            "without a name".to_owned()
        } else {
            name
        };
        if *left == 0 {
            let text =
                format!("[attachment {name}: not read, there are more than {MAX_ATTACHMENTS}]");
            pages.push(text, Sight::Named);
            return Ok(count + 1);
        }
        *left -= 1;
        pages.before = format!("[attachment {name}]\n");
        let read = match &part.body {
            PartType::Message(_) if depth == MAX_DEPTH => {
                Err(format!("is a mail in more than {MAX_DEPTH} others"))
            }
            PartType::Message(inner) => read_mail(inner, depth + 1, left, pages),
            _ => careful(|| attachment(&name, part.contents(), depth, left, pages)),
        };
        count += read.unwrap_or_else(|reason| {
            pages.before.clear();
            pages.push(
                format!("[attachment {name}: not read, it {reason}]"),
                Sight::Named,
            );
            1
        });
        if pages.is_full() {
            break;
        }
    }
    Ok(count)
}

fn attachment(
    name: &str,
    bytes: &[u8],
    depth: usize,
    left: &mut usize,
    pages: &mut Pages<'_>,
) -> Result<u32, String> {
    match kind::reader(name, bytes)? {
        Reader::Text(text) => {
            pages.push(text.into_owned(), Sight::Told);
            Ok(1)
        }
        Reader::Picture => Err("is a picture; send it by itself to have it seen".into()),
        Reader::Worker(DocumentKind::Mail) => {
            let mail = MessageParser::default()
                .parse(bytes)
                .filter(|_| depth < MAX_DEPTH);
            let reason = format!("is damaged, or a mail in more than {MAX_DEPTH} others");
            read_mail(&mail.ok_or(reason)?, depth + 1, left, pages)
        }
        Reader::Worker(kind) => of_kind(kind, bytes.to_vec(), pages),
    }
}

/// A reader that panics loses its attachment, not the mail.
fn careful(work: impl FnOnce() -> Result<u32, String>) -> Result<u32, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("is damaged".into()))
}

fn head(mail: &Message<'_>) -> String {
    let mut head = String::new();
    let mut line = |name: &str, value: &str| {
        let value: String = one_line(value).chars().take(MAX_HEADER).collect();
        if !value.is_empty() {
            // Writing into a string does not fail.
            let _ = writeln!(head, "{name}: {value}");
        }
    };
    line("From", &addresses(mail.from()));
    line("To", &addresses(mail.to()));
    line("Cc", &addresses(mail.cc()));
    line(
        "Date",
        &mail.date().map(DateTime::to_rfc3339).unwrap_or_default(),
    );
    line("Subject", mail.subject().unwrap_or_default());
    head
}

fn addresses(of: Option<&Address<'_>>) -> String {
    let shown = of
        .into_iter()
        .flat_map(Address::iter)
        .take(MAX_ADDRESSES)
        .map(|one| {
            let address = one.address().unwrap_or_default();
            match one.name() {
                Some(name) if !address.is_empty() => format!("{name} <{address}>"),
                Some(name) => name.to_owned(),
                None => address.to_owned(),
            }
        });
    shown.collect::<Vec<_>>().join(", ")
}

/// The text, or what its web page shows.
fn body(mail: &Message<'_>) -> Result<String, String> {
    let mut all = String::new();
    let mut parts = mail.text_bodies().collect::<Vec<_>>();
    if parts.is_empty() {
        parts = mail.html_bodies().collect();
    }
    for part in parts {
        let text = match &part.body {
            PartType::Text(text) => text.trim().to_owned(),
            PartType::Html(page) => html::seen(page)
                .map_err(|error| format!("has a text that cannot be read: {error}"))?,
            _ => continue,
        };
        all += "\n\n";
        all += &text.replace("\r\n", "\n");
    }
    Ok(all)
}
