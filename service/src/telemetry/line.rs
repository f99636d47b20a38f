//! What lines look like: their two formats, those that the log writes about itself, which no event of `tracing` is behind, and
//! the name of those that are sampled apart.

use tracing::Level;

use super::json;

/// The `name` of lines that tell a session's story.
pub(crate) const SESSION_LINE: &str = "session";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON object a line, for collectors.
    Json,
    /// One readable line, for a terminal.
    Text,
}

impl Format {
    /// One line with its end. The values of `fields` are JSON.
    pub(super) fn line(self, level: Level, target: &str, message: &str, fields: &[(&str, String)]) -> String {
        match self {
            Self::Json => json::own_line(level, target, message, fields),
            Self::Text => {
                let said =
                    format!("{} {level:>5} {target}: {}", json::timestamp(crate::runtime::clock::now()), one_line(message));
                let fields = fields.iter().map(|(name, value)| format!(" {name}={value}"));
                fields.fold(said, |line, field| line + &field) + "\n"
            }
        }
    }
}

/// Without control characters: they could forge a line, or drive a terminal.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_logs_own_looks_like_any_other() {
        let fields = [("log.suppressed", "12".to_owned()), ("reason", "\"a \\\"b\\\"\"".to_owned())];
        let json = Format::Json.line(Level::WARN, "here", "said\n", &fields);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["log.suppressed"], &line["reason"]),
            (&"WARN".into(), &"said\n".into(), &12.into(), &"a \"b\"".into())
        );
        assert!(json.starts_with("{\"timestamp\":\"20") && json.ends_with("}\n") && json.matches('\n').count() == 1, "{json}");
        let text = Format::Text.line(Level::WARN, "here", "said\n\x1b[2J", &fields);
        assert!(text.ends_with("Z  WARN here: said\\n\\u{1b}[2J log.suppressed=12 reason=\"a \\\"b\\\"\"\n"), "{text:?}");
    }
}
