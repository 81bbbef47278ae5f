//! Office documents of parts that the fuzzer writes: within a sound archive, so that they are read.

use rawzip::{CompressionMethod, ZipArchiveWriter};

/// Between two parts in the fuzzer's bytes.
const BETWEEN: &[u8] = b"\n%%\n";

/// An archive of fixed parts, and of those with these names, whose content follows one another in
/// `bytes`.
pub fn of(fixed: &[(&str, &str)], names: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut rest = Some(bytes);
    let mut parts: Vec<(&str, &[u8])> = vec![];
    parts.extend(fixed.iter().map(|(name, text)| (*name, text.as_bytes())));
    for name in names {
        let Some(all) = rest else { break };
        let at = all.windows(BETWEEN.len()).position(|part| part == BETWEEN);
        parts.push((name, &all[..at.unwrap_or(all.len())]));
        rest = at.map(|at| &all[at + BETWEEN.len()..]);
    }
    let mut out = vec![];
    let mut archive = ZipArchiveWriter::new(&mut out);
    for (name, content) in parts {
        let file = archive.new_file(name).compression_method(CompressionMethod::STORE);
        let (mut entry, config) = file.start().expect("a writer into memory");
        let mut writer = config.wrap(&mut entry);
        std::io::Write::write_all(&mut writer, content).expect("a writer into memory");
        let (_, descriptor) = writer.finish().expect("a writer into memory");
        entry.finish(descriptor).expect("a writer into memory");
    }
    archive.finish().expect("a writer into memory");
    out
}

/// A package of Microsoft's office: its main part, of this kind, is the first of `names`.
#[allow(dead_code, reason = "only targets of Microsoft's office have packages")]
pub fn package(kind: &str, names: &[&str], relations: &[(&str, &str)], bytes: &[u8]) -> Vec<u8> {
    let main = names[0];
    let types = format!(
        "<Types><Override PartName=\"/{main}\" ContentType=\"application/vnd.openxmlformats-officedocument.{kind}.main+xml\"/></Types>"
    );
    let one = |i: usize, kind: &str, target: &str| format!("<Relationship Id=\"rId{i}\" Type=\"x/{kind}\" Target=\"/{target}\"/>");
    let list = |all: &[(&str, &str)]| {
        let all: String = all.iter().enumerate().map(|(i, (kind, target))| one(i + 1, kind, target)).collect();
        format!("<Relationships>{all}</Relationships>")
    };
    let (folder, name) = main.split_once('/').expect("a folder");
    let (root, own) = (list(&[("officeDocument", main)]), list(relations));
    let own_name = format!("{folder}/_rels/{name}.rels");
    of(&[("[Content_Types].xml", &types), ("_rels/.rels", &root), (&own_name, &own)], names, bytes)
}
