//! What a chat template may ask of its compiler. minijinja looks into an expression anew at each of
//! its parts (it folds constants), so one expression takes time by the square of its length.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

/// Bytes of a template; the family's have up to 19 KB.
pub const MAX_TEMPLATE: usize = 64 << 10;
/// Names, texts, numbers and signs of one expression or statement. Those of the family's templates
/// have up to 36. A template of [`MAX_TEMPLATE`] bytes, all of them in expressions as long as may be,
/// compiles in a tenth of a second.
pub const MAX_TOKENS: usize = 512;

/// Says why a template is not compiled, if it is not to be. What is no template at all is the
/// compiler's to say.
pub fn check(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEMPLATE {
        return Err(format!(
            "it has {} bytes, and {MAX_TEMPLATE} are the most",
            text.len()
        ));
    }
    let mut tokens = 0;
    // The compiler comes no further than its own lexer.
    for (token, span) in tokenize(text, false, SyntaxConfig::default()).map_while(Result::ok) {
        tokens = match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => 0,
            _ => tokens + 1,
        };
        if tokens > MAX_TOKENS {
            return Err(format!(
                "line {} has an expression of more than {MAX_TOKENS} names and signs",
                span.start_line
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_as_long_as_its_parts_are_many() {
        let sum = |parts: usize| format!("a\n{{{{ x{} }}}}", "+x".repeat(parts / 2 - 1));
        // The last one is its end.
        assert_eq!(check(&sum(MAX_TOKENS)), Ok(()));
        let why = check(&sum(MAX_TOKENS + 2)).unwrap_err();
        assert!(
            why.starts_with("line 2 has an expression of more than 512"),
            "{why}"
        );
        // Many short ones, a long text, and what only looks like an expression.
        let short = "{{ x + 'x' }}".repeat(MAX_TOKENS);
        let text = format!("{{% set x = '{}' %}}", "x + ".repeat(MAX_TOKENS));
        let raw = format!("{{% raw %}}{{{{ {}", "x + ".repeat(MAX_TOKENS)) + "{% endraw %}";
        for fine in [short, text, raw] {
            assert_eq!(check(&fine), Ok(()), "{fine:.80}");
        }
        let statement = format!("{{% if {} %}}", "not ".repeat(MAX_TOKENS));
        assert!(check(&statement).is_err());
    }

    #[test]
    fn a_template_that_is_too_long_is_not_looked_into() {
        let why = check(&" ".repeat(MAX_TEMPLATE + 1)).unwrap_err();
        assert!(why.contains("65537 bytes"), "{why}");
    }
}
