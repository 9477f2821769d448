//! The page at `/`, for browsers: one document, with its script and its style in it.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// The document.
pub(super) const HTML: &str = include_str!("index.html");

/// What the browser lets the page do: run its own scripts, known by their SHA-256, and ask this server. Nothing from elsewhere.
///
/// <https://www.w3.org/TR/CSP3/#script-src>: text in a `script` element is compared by its hash; handlers in attributes do not run.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| policy(HTML));

fn policy(html: &str) -> String {
    let hashes: String = scripts(html).map(|script| format!(" 'sha256-{}'", base64(&Sha256::digest(script)))).collect();
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

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at) & 63) as usize;
            text.push(if at <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648 §10.
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

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
    fn the_page_loads_nothing_from_elsewhere_and_has_no_handlers_in_attributes() {
        for foreign in ["src=\"http", "href=\"http", "src=\"//", "@import", " onclick=", " onload=", "javascript:"] {
            assert!(!HTML.contains(foreign), "{foreign}");
        }
    }
}
