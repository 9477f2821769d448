//! Man pages and shell completions, made from the definition of the command line.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::cli::Cli;

/// The completions for a shell, as it reads them.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "portcullis", &mut text);
    text
}

/// The page of the program itself, in roff.
///
/// # Errors
/// None: the page is written to memory.
pub fn man() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(Cli::command()).render(&mut text)?;
    Ok(text)
}

/// Writes all pages, `portcullis.1` and one for each command, into a directory, which is made if need be.
///
/// # Errors
/// Of the file system.
pub fn write_man(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let text = String::from_utf8(completions(*shell)).unwrap();
            for word in ["keygen", "datapath", "log-level"] {
                assert!(text.contains(word), "{shell}: no {word}");
            }
        }
    }

    #[test]
    fn the_page_names_flags_and_exit_codes() {
        let page = String::from_utf8(man().unwrap()).unwrap();
        assert!(page.contains(".TH portcullis 1"), "{page}");
        for part in ["\\-\\-datapath", "Exit codes", "77"] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
