//! Whether one word is a slip of the pen of another: only then is the other offered.

/// How alike two words must be (Jaro-Winkler, 0 to 1) before one is offered for the other.
const ALIKE_MIN: f64 = 0.75;
/// How many characters of ten may be wrong: Jaro-Winkler alone finds `web.search` like
/// `shared_secret`.
const WRONG_OF_TEN_MAX: usize = 5;

/// Returns how alike two words are, 0 to 1: 0 when most of them differs.
pub(super) fn of(known: &str, written: &str) -> f64 {
    let longest = known.chars().count().max(written.chars().count());
    let wrong = strsim::damerau_levenshtein(known, written);
    if wrong * 10 > longest * WRONG_OF_TEN_MAX {
        return 0.0;
    }
    strsim::jaro_winkler(known, written)
}

/// Returns the known word that is most alike, if any is alike enough.
pub(super) fn nearest<'k>(
    known: impl Iterator<Item = &'k str>,
    alike: impl Fn(&str) -> f64,
) -> Option<&'k str> {
    known
        .map(|known| (alike(known), known))
        .filter(|(alike, _known)| *alike >= ALIKE_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_alike, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slip_of_the_pen_is_alike() {
        let known = || ["openai", "fireworks", "groq"].into_iter();
        let check = |written: &str, expected: Option<&str>| {
            assert_eq!(
                nearest(known(), |one| of(one, written)),
                expected,
                "{written}"
            );
        };
        check("opneai", Some("openai"));
        check("grok", Some("groq"));
        check("firework", Some("fireworks"));
        check("foo", None);
        check("", None);
    }
}
