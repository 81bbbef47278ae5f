//! Control words by which groups are passed over, and the encodings that RTF names by numbers. Pure.

use encoding_rs::Encoding;

/// Groups that hold none of the text.
pub const HIDDEN: [&str; 28] = [
    "colortbl",
    "stylesheet",
    "info",
    "listtable",
    "listoverridetable",
    "revtbl",
    "rsidtbl",
    "generator",
    "themedata",
    "colorschememapping",
    "datastore",
    "latentstyles",
    "mmathPr",
    "xmlnstbl",
    "filetbl",
    "pgptbl",
    "fldtype",
    "datafield",
    "bkmkstart",
    "bkmkend",
    "blipuid",
    "picprop",
    "shpinst",
    "nonesttables",
    "pnseclvl",
    "panose",
    "atnid",
    "atndate",
];

/// Of a font.
pub fn of_charset(charset: i32) -> Option<&'static Encoding> {
    of_codepage(match charset {
        0 => 1252,
        77 => 10_000,
        128 => 932,
        129 => 949,
        134 => 936,
        136 => 950,
        161 => 1253,
        162 => 1254,
        163 => 1258,
        177 => 1255,
        178 => 1256,
        186 => 1257,
        204 => 1251,
        222 => 874,
        238 => 1250,
        _ => return None,
    })
}

pub fn of_codepage(page: i32) -> Option<&'static Encoding> {
    let label = match page {
        874 => "windows-874",
        932 => "shift_jis",
        936 => "gbk",
        949 => "euc-kr",
        950 => "big5",
        10_000 => "macintosh",
        65_001 => "utf-8",
        866 => "ibm866",
        1250..=1258 => return Encoding::for_label(format!("windows-{page}").as_bytes()),
        _ => return None,
    };
    Encoding::for_label(label.as_bytes())
}
