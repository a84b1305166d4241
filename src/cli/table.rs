//! What an answer looks like: a table or a list of facts for people, JSON for programs. Pure.

use serde_json::Value;

/// How answers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    People,
    Json,
}

/// The title of a column, and the field of each row that stands in it.
pub type Column = (&'static str, &'static str);

impl Show {
    pub fn new(json: bool) -> Self {
        if json { Self::Json } else { Self::People }
    }

    /// The rows of a list.
    pub fn rows(self, columns: &[Column], rows: &[Value]) -> String {
        match self {
            Self::Json => format!("{}\n", Value::from(rows.to_vec())),
            Self::People if rows.is_empty() => "There is nothing here.\n".to_owned(),
            Self::People => table(columns, rows),
        }
    }

    /// One thing, field by field.
    pub fn thing(self, thing: &Value) -> String {
        match self {
            Self::Json => format!("{thing}\n"),
            Self::People => facts(thing),
        }
    }

    /// What was done, where the answer holds nothing.
    pub fn done(self, said: &str) -> String {
        match self {
            Self::Json => "{}\n".to_owned(),
            Self::People => format!("{said}\n"),
        }
    }
}

/// The items of an answer: below `field`, or the answer itself.
pub fn items<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    let list = answer.get(field).unwrap_or(answer);
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn table(columns: &[Column], rows: &[Value]) -> String {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|(_, field)| cell(row.get(*field))).collect());
    let lines: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
    let width = |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|text| text.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|at| width(at).unwrap_or_default()).collect();
    let padded = |line: &Vec<String>| {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(text, width)| format!("{text:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    lines.iter().map(padded).collect()
}

/// A control character could move the cursor of whoever looks at a name.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(yes)) => (if *yes { "yes" } else { "no" }).to_owned(),
        Some(Value::Array(all)) if all.is_empty() => "-".to_owned(),
        Some(Value::Array(all)) => all.iter().map(|one| cell(Some(one))).collect::<Vec<_>>().join(", "),
        Some(Value::Object(fields)) => {
            fields.iter().map(|(name, value)| format!("{name}={}", cell(Some(value)))).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    };
    text.replace(char::is_control, "\u{fffd}")
}

fn facts(thing: &Value) -> String {
    let Some(fields) = thing.as_object() else {
        return format!("{}\n", cell(Some(thing)));
    };
    let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or_default();
    fields.iter().map(|(name, value)| format!("{name:width$}  {}\n", cell(Some(value)))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[("ID", "id"), ("NAME", "name"), ("HOSTS", "hosts")];

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_what_is_absent_is_a_dash() {
        let rows = [json!({"id": "key_1", "name": "日本", "hosts": ["a", "b"]}), json!({"id": "k"})];
        let expected = "ID     NAME  HOSTS\nkey_1  日本    a, b\nk      -     -\n";
        assert_eq!(Show::People.rows(COLUMNS, &rows), expected);
        assert_eq!(Show::People.rows(COLUMNS, &[]), "There is nothing here.\n");
    }

    #[test]
    fn json_is_one_line_and_holds_everything() {
        assert_eq!(Show::Json.rows(COLUMNS, &[json!({"id": 1, "more": true})]), "[{\"id\":1,\"more\":true}]\n");
        assert_eq!(Show::Json.thing(&json!({"a": null})), "{\"a\":null}\n");
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        let shown = Show::People.thing(&json!({"name": "a\u{1b}[2Jb\nc"}));
        assert_eq!(shown, "name  a\u{fffd}[2Jb\u{fffd}c\n");
    }
}
