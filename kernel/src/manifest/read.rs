//! Reading a TOML table key by key, with the place of everything that is wrong or unknown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ManifestWarning, Problem, WarningKind};

/// Texts less alike than this are no slip of the pen of each other.
const LIKENESS_MIN: f64 = 0.75;

/// What was found while reading.
pub(super) struct Notes<'s> {
    text: &'s str,
    source: &'s str,
    problems: RefCell<Vec<(usize, Problem)>>,
    warnings: RefCell<Vec<(usize, ManifestWarning)>>,
}

impl<'s> Notes<'s> {
    pub(super) fn new(text: &'s str, source: &'s str) -> Self {
        Self {
            text,
            source,
            problems: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(super) fn problem(&self, at: &Range<usize>, what: String) {
        let (line, column) = position(self.text, at.start);
        let problem = Problem { line, column, what };
        self.problems.borrow_mut().push((at.start, problem));
    }

    pub(super) fn warn(&self, at: &Range<usize>, key: String, what: WarningKind) {
        let (line, column) = position(self.text, at.start);
        let warning = ManifestWarning {
            source: self.source.to_owned(),
            line,
            column,
            key,
            what,
        };
        self.warnings.borrow_mut().push((at.start, warning));
    }

    /// Returns problems and warnings, each in the order of the text.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<ManifestWarning>) {
        let mut problems = self.problems.into_inner();
        let mut warnings = self.warnings.into_inner();
        problems.sort_by_key(|(at, _)| *at);
        warnings.sort_by_key(|(at, _)| *at);
        (
            problems.into_iter().map(|(_, problem)| problem).collect(),
            warnings.into_iter().map(|(_, warning)| warning).collect(),
        )
    }
}

/// Returns line and column, both from 1, of a byte of the text.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

/// Returns what of `known` is most like `name`, if anything is.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

/// A table that is being read: every key that is asked for counts as known.
pub(super) struct Section<'t> {
    path: String,
    table: &'t DeTable<'t>,
    notes: &'t Notes<'t>,
    known: Vec<&'static str>,
}

type Value<'t> = &'t Spanned<DeValue<'t>>;

impl<'t> Section<'t> {
    pub(super) fn root(table: &'t DeTable<'t>, notes: &'t Notes<'t>) -> Self {
        Self::new(String::new(), table, notes)
    }

    fn new(path: String, table: &'t DeTable<'t>, notes: &'t Notes<'t>) -> Self {
        Self {
            path,
            table,
            notes,
            known: Vec::new(),
        }
    }

    pub(super) fn full(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Returns a value of any type.
    pub(super) fn any(&mut self, key: &'static str) -> Option<Value<'t>> {
        self.known.push(key);
        self.table.get(key)
    }

    fn mistyped(&self, key: &str, value: Value<'t>, expected: &str) {
        let found = value.get_ref().type_str();
        let what = format!(
            "`{}` must be {expected}, not a TOML {found}",
            self.full(key)
        );
        self.notes.problem(&value.span(), what);
    }

    /// Notes that a value that was read is not one of those allowed.
    pub(super) fn reject(&self, key: &str, value: Value<'t>, why: &str) {
        let what = format!("`{}`: {why}", self.full(key));
        self.notes.problem(&value.span(), what);
    }

    pub(super) fn text(
        &mut self,
        key: &'static str,
        bytes_max: usize,
    ) -> Option<(&'t str, Value<'t>)> {
        let value = self.any(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.mistyped(key, value, "a string");
            return None;
        };
        if text.len() > bytes_max {
            let why = format!(
                "has {} bytes, more than the {bytes_max} allowed",
                text.len()
            );
            self.reject(key, value, &why);
            return None;
        }
        Some((text, value))
    }

    pub(super) fn string(&mut self, key: &'static str, default: &str, bytes_max: usize) -> String {
        let found = self.text(key, bytes_max).map(|(text, _)| text);
        found.unwrap_or(default).to_owned()
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.any(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.mistyped(key, value, "true or false");
        }
        found
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<(u64, Value<'t>)> {
        let value = self.any(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.mistyped(key, value, "an integer");
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some((number, value)),
            Ok(_) | Err(_) => {
                let why = format!("must be from {} to {}", range.start(), range.end());
                self.reject(key, value, &why);
                None
            }
        }
    }

    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.any(key)?;
        let text = match value.get_ref() {
            DeValue::Float(float) => float.as_str().to_owned(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().to_owned(),
            DeValue::Integer(_)
            | DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                self.mistyped(key, value, "a number");
                return None;
            }
        };
        match text.parse::<f64>() {
            Ok(number) if range.contains(&number) => Some(number),
            Ok(_) | Err(_) => {
                let why = format!("must be from {} to {}", range.start(), range.end());
                self.reject(key, value, &why);
                None
            }
        }
    }

    /// Returns a list of strings, each with its place; `None` when the key is absent.
    pub(super) fn list(
        &mut self,
        key: &'static str,
        max: usize,
    ) -> Option<Vec<(&'t str, Range<usize>)>> {
        let value = self.any(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.mistyped(key, value, "a list of strings");
            return Some(Vec::new());
        };
        if items.len() > max {
            self.reject(key, value, &format!("has more than {max} items"));
            return Some(Vec::new());
        }
        let mut found = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(text) if text.len() <= 256 => found.push((text, item.span())),
                Some(_) => self.reject(key, item, "has an item of more than 256 bytes"),
                None => self.mistyped(key, item, "a list of strings"),
            }
        }
        Some(found)
    }

    pub(super) fn strings(&mut self, key: &'static str, max: usize) -> Option<Vec<String>> {
        let list = self.list(key, max)?;
        Some(list.into_iter().map(|(text, _)| text.to_owned()).collect())
    }

    /// Returns the table under a key; an absent one reads as empty.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'t>> {
        let value = self.any(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.mistyped(key, value, "a table");
            return None;
        };
        Some(Section::new(self.full(key), table, self.notes))
    }

    /// Returns the tables of a list of tables.
    pub(super) fn sections(&mut self, key: &'static str, max: usize) -> Vec<Section<'t>> {
        let Some(value) = self.any(key) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            self.mistyped(key, value, "a list of tables");
            return Vec::new();
        };
        if items.len() > max {
            self.reject(key, value, &format!("has more than {max} items"));
        }
        let mut found = Vec::new();
        for (at, item) in items.iter().take(max).enumerate() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let path = format!("{}[{at}]", self.full(key));
                    found.push(Section::new(path, table, self.notes));
                }
                None => self.mistyped(key, item, "a list of tables"),
            }
        }
        found
    }

    /// Returns all entries of a free table as texts.
    pub(super) fn free(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let Some(section) = self.section(key) else {
            return BTreeMap::new();
        };
        let entry = |(key, value): (&Spanned<_>, Value<'t>)| {
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            let text = match value.get_ref().as_str() {
                Some(text) => text.to_owned(),
                None => section
                    .notes
                    .text
                    .get(value.span())
                    .unwrap_or("")
                    .to_owned(),
            };
            (key.clone().into_owned(), text)
        };
        section.table.iter().map(entry).collect()
    }

    /// Accepts a key of any type, and says that it has no effect.
    pub(super) fn without_effect(&mut self, key: &'static str, why: &'static str) {
        if let Some(value) = self.any(key) {
            let what = WarningKind::NotInForce { why };
            self.notes.warn(&value.span(), self.full(key), what);
        }
    }

    /// Warns of every key that was not asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let nearest = nearest(name, self.known.iter().copied());
                let what = WarningKind::UnknownKey { nearest };
                self.notes.warn(&key.span(), self.full(name), what);
            }
        }
    }

    pub(super) fn notes(&self) -> &'t Notes<'t> {
        self.notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        assert_eq!(position("abc", 0), (1, 1));
        assert_eq!(position("é=1\nx = 2", 4), (1, 4));
        assert_eq!(position("é=1\nx = 2", 5), (2, 1));
        assert_eq!(position("a", 99), (1, 2));
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_other_words_are_not() {
        let known = ["name", "module", "max_history_messages"];
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                nearest(text, known.into_iter()).as_deref(),
                expected,
                "{text}"
            );
        };
        check("nmae", Some("name"));
        check("max_history_message", Some("max_history_messages"));
        check("zzz", None);
    }
}
