//! The Containerfile, as far as others rely on it.

use std::collections::BTreeSet;

use super::files::text;

/// `docker` and `podman build -f`.
pub const CONTAINERFILE: &str = "deploy/container/Containerfile";

/// What is built of the Containerfile, stage by stage.
pub struct Image {
    instructions: Vec<(String, String)>,
}

impl Image {
    /// Reads it.
    pub fn read() -> Image {
        let text = text(CONTAINERFILE);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
        let split = |line: &str| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()));
        Image { instructions: joined.lines().filter_map(split).collect() }
    }

    /// The last instruction of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn last(&self, word: &str) -> &str {
        let found = self.instructions.iter().rev().find(|(name, _)| name == word);
        &found.unwrap_or_else(|| panic!("no {word} in the Containerfile")).1
    }

    /// The same, of one in the form of a JSON list; of a HEALTHCHECK that of its command.
    pub fn list(&self, word: &str) -> Vec<String> {
        let text = self.last(word);
        let list = &text[text.find('[').unwrap_or_else(|| panic!("{word} is no list: {text}"))..];
        serde_json::from_str(list).unwrap_or_else(|error| panic!("{word}: {error}: {text}"))
    }

    /// The default of a build argument.
    pub fn argument(&self, name: &str) -> &str {
        let mut values = self.instructions.iter().filter(|(word, _)| word == "ARG");
        let value = values.find_map(|(_, rest)| rest.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no ARG {name}"))
    }

    /// The value of a variable of the environment.
    pub fn variable(&self, name: &str) -> &str {
        let values = self.instructions.iter().filter(|(word, _)| word == "ENV");
        let mut words = values.flat_map(|(_, rest)| rest.split_whitespace());
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or_else(|| panic!("no ENV {name}"))
    }

    /// Where the last stage comes from.
    pub fn base(&self) -> &str {
        self.last("FROM")
    }

    /// What the program has as file capabilities, as containers name them: NET_RAW, NET_ADMIN.
    ///
    /// # Panics
    /// When they are more than permitted: with effective ones the program would not start where one is missing.
    pub fn capabilities(&self) -> BTreeSet<String> {
        let runs = self.instructions.iter().filter(|(word, _)| word == "RUN");
        let mut set = runs.filter_map(|(_, command)| command.strip_prefix("setcap "));
        let granted = set.next().and_then(|rest| rest.split(' ').next()).expect("a RUN that begins with setcap");
        let list = granted.strip_suffix("+p").unwrap_or_else(|| panic!("not permitted alone: {granted}"));
        list.split(',').map(|name| name.strip_prefix("cap_").expect("cap_...").to_uppercase()).collect()
    }
}
