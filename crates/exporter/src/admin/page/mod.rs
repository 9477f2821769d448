//! The page at `/`, for browsers: one document, with its script and its style in it.

use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

/// The document without the lines that are comments, an eighth of it: it is for browsers, and the comments are for readers of the parts.
pub(super) const HTML: &str = match str::from_utf8(KEPT.0.split_at(KEPT.1).0) {
    Ok(html) => html,
    Err(_) => panic!("whole lines of UTF-8 are UTF-8"),
};

/// Its parts: what it is, how it looks, and what it does, from what needs no document to what does.
const SOURCE: &str = concat!(
    include_str!("head.html"),
    include_str!("style.css"),
    include_str!("body.html"),
    include_str!("logic.js"),
    include_str!("view.js"),
    include_str!("diagram.js"),
    include_str!("tiles.js"),
    include_str!("cards.js"),
    include_str!("main.js"),
    include_str!("tail.html"),
);

/// The lines that are kept, and their length.
const KEPT: ([u8; SOURCE.len()], usize) = {
    let source = SOURCE.as_bytes();
    let (mut kept, mut kept_len, mut start) = ([0; SOURCE.len()], 0, 0);
    while start < source.len() {
        let mut end = start;
        while end < source.len() && source[end] != b'\n' {
            end += 1;
        }
        let is_comment = is_comment(source, start);
        while start < source.len() && start <= end {
            if !is_comment {
                kept[kept_len] = source[start];
                kept_len += 1;
            }
            start += 1;
        }
    }
    (kept, kept_len)
};

/// Whether the line that starts here begins with `//` or `/*`, or with a further ` *` of such a comment.
const fn is_comment(source: &[u8], start: usize) -> bool {
    let mut at = start;
    while at < source.len() && source[at] == b' ' {
        at += 1;
    }
    if at + 1 >= source.len() {
        return false;
    }
    match (source[at], source[at + 1]) {
        (b'/', b'/' | b'*') => true,
        // At the beginning of a line `*` is a selector.
        (b'*', b' ' | b'/') => at > start,
        _ => false,
    }
}

/// What the browser lets the page do: run its own scripts, known by their SHA-256, and ask this server. Nothing from elsewhere.
///
/// <https://www.w3.org/TR/CSP3/#script-src>: text in a `script` element is compared by its hash; handlers in attributes do not run.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| policy(HTML));

fn policy(html: &str) -> String {
    let hashes: String =
        scripts(html).map(|script| format!(" 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(script)))).collect();
    let scripts = if hashes.is_empty() { " 'none'" } else { &hashes };
    format!(
        "default-src 'none'; script-src{scripts}; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// What stands between `<script…>` and `</script>`.
fn scripts(html: &str) -> impl Iterator<Item = &str> {
    html.split("<script").skip(1).filter_map(|rest| rest.split_once('>')?.1.split("</script>").next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_is_let_in_by_its_hash_and_nothing_else() {
        // The hash is the example of the MDN page on script-src.
        let policy = policy("<script>var inline = 1;</script><p><script type=\"module\">2</script>");
        assert!(
            policy.contains("script-src 'sha256-B2yPHKaXnvFWtRChIbabYmUBFZdVfKKXHbWtWidDVF8=' 'sha256-"),
            "{policy}"
        );
        assert!(!policy.split(';').any(|part| part.contains("script-src") && part.contains("unsafe")), "{policy}");
        assert!(super::policy("<p>no script</p>").contains("script-src 'none'"));
    }

    #[test]
    fn comments_and_nothing_else_are_left_out() {
        let is_comment = |line: &str| is_comment(line.as_bytes(), 0);
        for comment in ["// a", "  // a", "/* a */", "/** a", " * a", "   */"] {
            assert!(is_comment(comment), "{comment}");
        }
        for code in ["", " ", "/", "* { margin: 0; }", "a(); // b", "  a * b", "  /a/.test(b)"] {
            assert!(!is_comment(code), "{code}");
        }
        assert!(!HTML.contains("/**"));
        assert!(SOURCE.lines().filter(|line| !super::is_comment(line.as_bytes(), 0)).eq(HTML.lines()));
        assert!(HTML.len() <= 68_000, "{}", HTML.len());
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_has_no_handlers_in_attributes() {
        for foreign in ["src=\"http", "href=\"http", "src=\"//", "@import", " onclick=", " onload=", "javascript:"] {
            assert!(!HTML.contains(foreign), "{foreign}");
        }
    }
}
