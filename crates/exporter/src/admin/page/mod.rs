//! The page at `/`, for browsers: one document, with its script and its style in it.

use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

/// The document, put together from its parts: what it is, how it looks, and what it does, from what needs no document to what does.
pub(super) const HTML: &str = concat!(
    include_str!("head.html"),
    include_str!("style.css"),
    include_str!("body.html"),
    include_str!("logic.js"),
    include_str!("diagram.js"),
    include_str!("view.js"),
    include_str!("main.js"),
    include_str!("tail.html"),
);

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
    fn the_page_loads_nothing_from_elsewhere_and_has_no_handlers_in_attributes() {
        for foreign in ["src=\"http", "href=\"http", "src=\"//", "@import", " onclick=", " onload=", "javascript:"] {
            assert!(!HTML.contains(foreign), "{foreign}");
        }
    }
}
