//! Which program this is.

/// What is known of the program since it was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The version of the package.
    pub version: String,
    /// The commit of its sources, or `unknown`.
    pub commit: String,
    /// What it was compiled for, as `x86_64-unknown-linux-gnu`, or `unknown`.
    pub target: String,
    /// What it was compiled by, as `rustc --version` has it, or `unknown`.
    pub rustc: String,
}

impl From<&str> for Build {
    /// Nothing is known but the version.
    fn from(version: &str) -> Build {
        let unknown = || "unknown".to_owned();
        Build { version: version.to_owned(), commit: unknown(), target: unknown(), rustc: unknown() }
    }
}
