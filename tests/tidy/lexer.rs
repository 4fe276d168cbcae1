//! Rust source text → its code without comments and literals, and its string literals. Lines are kept, so that a
//! finding can name one. This is no parser: it knows just enough of Rust's tokens not to mistake one for another.

/// A source text, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The text with comments blanked and literals emptied; as many lines as the original.
    pub code: String,
    /// String literals (escapes as written) with the line, from 1, that each starts on.
    pub strings: Vec<(usize, String)>,
}

/// Takes a source text apart.
pub fn lex(text: &str) -> Source {
    let mut source = Source::default();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = source.code.chars().next_back().unwrap_or(' ');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            let length = block_comment(rest);
            keep_lines(&rest[..length], &mut source.code);
            length
        } else if let Some((open, close)) = string_bounds(rest, before) {
            let line = source.code.matches('\n').count() + 1;
            source.strings.push((line, rest[open..close.0].to_owned()));
            source.code.push_str("\"\"");
            keep_lines(&rest[open..close.0], &mut source.code);
            close.1
        } else if let Some(length) = char_literal(rest) {
            source.code.push_str("' '");
            length
        } else {
            source.code.push(first);
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    source
}

fn keep_lines(skipped: &str, code: &mut String) {
    code.extend(skipped.chars().filter(|&symbol| symbol == '\n'));
}

/// Length of the (nested) block comment at the start of `text`.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// If a string literal starts here: where its content starts, and (where that ends, where the literal ends).
fn string_bounds(text: &str, before: char) -> Option<(usize, (usize, usize))> {
    let in_word = before.is_alphanumeric() || before == '_';
    let prefix = if in_word {
        ""
    } else {
        ["br", "cr", "r", "b", "c"].into_iter().find(|it| text.starts_with(it)).unwrap_or("")
    };
    let body = &text[prefix.len()..];
    let hashes = if prefix.ends_with('r') { body.len() - body.trim_start_matches('#').len() } else { 0 };
    if !body[hashes..].starts_with('"') {
        // A prefix letter that belongs to a word, or a raw identifier.
        return None;
    }
    let open = prefix.len() + hashes + 1;
    let content = &text[open..];
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        let length = content.find(&end).unwrap_or(content.len());
        return Some((open, (open + length, (open + length + end.len()).min(text.len()))));
    }
    let mut escaped = false;
    let length = content.find(|symbol| {
        let ends = symbol == '"' && !escaped;
        escaped = symbol == '\\' && !escaped;
        ends
    });
    let length = length.unwrap_or(content.len());
    Some((open, (open + length, (open + length + 1).min(text.len()))))
}

/// Length of the character literal at the start of `text`; none if that is a lifetime or no quote at all.
fn char_literal(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    let mut symbols = rest.char_indices();
    let (_, first) = symbols.next()?;
    if first == '\\' {
        return rest[2..].find('\'').map(|length| length + 4);
    }
    let (at, second) = symbols.next()?;
    (second == '\'').then_some(at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_told_from_code() {
        let text = "a /* b /* \"c\" */ \n d */ e // \"f\"\n\"g \\\" h\" 'i' '\\'' '\"' &'j k r#\"l \"m\" n\"# r\"o\\\" br\"p\" q";
        let source = lex(text);
        assert_eq!(source.code, "a \n e \n\"\" ' ' ' ' ' ' &'j k \"\" \"\" \"\" q");
        let strings: Vec<_> = source.strings.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(strings, [(3, "g \\\" h"), (3, "l \"m\" n"), (3, "o\\"), (3, "p")]);
    }

    #[test]
    fn a_literal_of_many_lines_keeps_the_lines_behind_it() {
        let source = lex("\"a\nb\"\nc");
        assert_eq!((source.code.as_str(), source.strings.len()), ("\"\"\n\nc", 1));
    }
}
