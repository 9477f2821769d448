//! The live page in a real browser.

mod browser;
mod support;
