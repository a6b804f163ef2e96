//! Plain tables: columns as wide as their widest cell, two spaces between, no lines.

/// Which side the cells of a column stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table in the making.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the headings are dropped, missing ones are empty.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, headings first; no line ends in a space.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (heading, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                cells.map(|cell| width(cell)).chain([width(heading)]).max().unwrap_or(0)
            })
            .collect();
        let headings: Vec<String> =
            self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        std::iter::once(&headings).chain(&self.rows).map(|row| self.line(row, &widths)).collect()
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (index, ((_, align), column)) in self.columns.iter().zip(widths).enumerate() {
            let cell = row.get(index).map_or("", String::as_str);
            let padding = " ".repeat(column.saturating_sub(width(cell)));
            if index > 0 {
                line.push_str("  ");
            }
            match align {
                Align::Left => line.extend([cell, &padding]),
                Align::Right => line.extend([padding.as_str(), cell]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table =
            Table::new(&[("ID", Align::Left), ("SIZE", Align::Right), ("", Align::Left)]);
        table.row(vec!["a3f9".into(), "1.0 KiB".into(), "x".into()]);
        table.row(vec!["b\u{e9}".into(), "7 B".into()]);
        assert_eq!(table.lines(), ["ID       SIZE", "a3f9  1.0 KiB  x", "b\u{e9}        7 B"]);
    }
}
