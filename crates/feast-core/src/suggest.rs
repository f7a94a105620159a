//! Hints for names that do not exist.

use std::collections::HashSet;

use crate::DUMMY_ENTITY;

/// Returns ``did you mean `x`?`` for the closest valid name, else the list of valid names.
///
/// Returns `None` when there is no valid name at all.
pub fn did_you_mean<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut seen = HashSet::new();
    let names: Vec<&str> = valid.into_iter().filter(|name| *name != DUMMY_ENTITY && seen.insert(*name)).collect();
    let lowered = wrong.to_lowercase();
    let length = lowered.chars().count();
    // Callers may send names of any length: only those that can be close are compared.
    let closest = names
        .iter()
        .map(|name| (name.to_lowercase(), *name, 2.max(name.len() / 4)))
        .filter(|(known, _, most)| known.chars().count().abs_diff(length) <= *most)
        .map(|(known, name, most)| (edit_distance(&lowered, &known), name, most))
        .filter(|(distance, _, most)| distance <= most)
        .min();
    match closest {
        Some((_, name, _)) => Some(format!("did you mean `{name}`?")),
        None if names.is_empty() => None,
        None => Some(format!("valid names are {}", list_names(names))),
    }
}

/// Writes names as `` `a`, `b` and `c` ``, at most twenty of them.
pub fn list_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MOST: usize = 20;
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [init @ .., last] if quoted.len() <= MOST => format!("{} and {last}", init.join(", ")),
        many => format!("{} and {} more", many[..MOST].join(", "), many.len() - MOST),
    }
}

/// Levenshtein distance in characters, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_wins() {
        assert_eq!(did_you_mean("conv_rat", ["trips", "conv_rate"]), Some("did you mean `conv_rate`?".to_owned()));
        assert_eq!(
            did_you_mean("zzz", ["trips", "city", "trips"]),
            Some("valid names are `trips` and `city`".to_owned())
        );
        assert_eq!(did_you_mean("zzz", []), None);
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..25).map(|i| format!("f{i}")).collect();
        assert!(list_names(names.iter().map(String::as_str)).ends_with("`f19` and 5 more"));
    }
}
