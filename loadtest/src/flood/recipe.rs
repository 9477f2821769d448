//! Templates that take turns.

use super::template::{FRAME_MAX, Template, key_of};

/// Templates that take turns, and the key to their frames.
#[derive(Clone, Debug)]
pub struct Recipe {
    templates: Vec<Template>,
    key: u64,
}

impl Recipe {
    /// The most templates: the eBPF program has room for as many.
    pub const TEMPLATES_MAX: usize = 64;

    /// # Panics
    /// Without templates, or with too many.
    pub fn new(templates: Vec<Template>, seed: u64) -> Recipe {
        assert!((1..=Self::TEMPLATES_MAX).contains(&templates.len()), "{} templates", templates.len());
        Recipe { templates, key: key_of(seed) }
    }

    /// In the order in which they take turns.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// See [`key_of`].
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The frame of this number, and its length.
    #[inline]
    pub fn frame(&self, number: u64) -> ([u8; FRAME_MAX], usize) {
        let template = &self.templates[(number % self.templates.len() as u64) as usize];
        (template.frame(self.key, number), template.len())
    }

    /// The frame of this number as a vector.
    pub fn bytes(&self, number: u64) -> Vec<u8> {
        let (bytes, len) = self.frame(number);
        bytes[..len].to_vec()
    }
}
