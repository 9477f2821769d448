//! Reports of made-up results: the usual case and all that can be missing.

mod files;
mod made_up;
mod pages;
mod plots;
mod tables;
