//! A table as HTML.

use std::fmt::Write;

use super::escape::escaped;
use crate::report::table::{Cell, Table, Tone};

/// The table in a box that scrolls sideways on a narrow screen, with its notes below; many notes begin folded.
pub fn table(table: &Table) -> String {
    let mut html = String::from("<div class=\"scroll\"><table>\n");
    let _ = writeln!(html, "<caption>{}</caption>\n<thead><tr>", escaped(&table.caption));
    for column in &table.columns {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escaped(column));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        let cells: String = row.iter().map(cell).collect();
        let _ = writeln!(html, "<tr>{cells}</tr>");
    }
    let _ = writeln!(html, "</tbody>\n</table></div>");
    html.push_str(&notes(&table.notes));
    html
}

/// A field.
fn cell(cell: &Cell) -> String {
    let class = match cell.tone {
        Tone::Plain => "",
        Tone::Good => " class=\"good\"",
        Tone::Bad => " class=\"bad\"",
    };
    format!("<td{class}>{}</td>", escaped(&cell.text))
}

/// The notes below a table. Failures are left out: the page begins with them.
fn notes(notes: &[String]) -> String {
    let sentences = notes.iter().filter(|note| !note.starts_with("FAIL "));
    sentences.map(|note| format!("<p class=\"note\">{}</p>\n", escaped(note))).collect()
}
