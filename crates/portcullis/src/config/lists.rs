//! The files of prefixes that a listener allows or denies.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use connection::PrefixList;

/// The largest list that is read, in bytes: some 900,000 prefixes.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads some lists as one.
///
/// # Errors
/// Everything that is wrong with any of them: `FILE: cannot be read: ...`, `FILE:LINE: ...`.
pub fn read(files: &[PathBuf]) -> Result<PrefixList, Vec<String>> {
    let (mut lists, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        match read_one(file) {
            Ok(list) => lists.push(list),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(lists.iter().flat_map(PrefixList::iter).collect()) } else { Err(errors) }
}

fn read_one(file: &Path) -> Result<PrefixList, Vec<String>> {
    let unreadable = |why: &dyn Display| vec![format!("{}: cannot be read: {why}", file.display())];
    let len = fs::metadata(file).map_err(|error| unreadable(&error))?.len();
    if len > BYTES_MAX {
        return Err(unreadable(&format_args!("it has {len} bytes; legal: at most {BYTES_MAX}")));
    }
    let text = fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    PrefixList::parse(&text)
        .map_err(|errors| errors.iter().map(|error| format!("{}:{}: {error}", file.display(), error.line)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_add_up_and_every_fault_is_told_with_its_file_and_line() {
        let dir = std::env::temp_dir().join(format!("portcullis-lists-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (a, b) = (file("a", "198.18.0.0/24\n"), file("b", "2001:db8::/32 # a lab\n"));
        let both = read(&[a.clone(), b]).unwrap();
        for (addr, expected) in [("198.18.0.9", true), ("2001:db8::9", true), ("198.18.1.9", false)] {
            assert_eq!(both.contains(addr.parse().unwrap()), expected, "{addr}");
        }
        let bad = file("bad", "\n198.18.0.1/24\nnobody\n");
        let errors = read(&[bad, dir.join("missing"), a]).unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(
            errors[0].contains("bad:2: \"198.18.0.1/24\"") && errors[1].contains("bad:3: \"nobody\""),
            "{errors:?}"
        );
        assert!(errors[2].contains("missing: cannot be read"), "{errors:?}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
