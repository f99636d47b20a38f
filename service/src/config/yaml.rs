//! YAML as figment takes it, by a parser that is kept up.

use figment::providers::Format;
use serde::de::DeserializeOwned;

/// Provider of YAML text and files, in place of figment's own, whose parser is archived.
///
/// An error names line and column, and quotes nothing of the text, which may hold secrets.
#[derive(Debug)]
pub struct Yaml;

impl Format for Yaml {
    type Error = yaml_serde::Error;

    const NAME: &'static str = "YAML";

    fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Self::Error> {
        yaml_serde::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use figment::value::Value;

    use super::*;

    #[test]
    fn an_error_names_the_place_and_quotes_nothing() {
        for (text, place) in [
            ("auth:\n  secret_token: [hunter2\n", "line 3 column 1"),
            ("auth:\n  secret_token: \"hunter2\n", "line 2 column 17"),
            ("auth:\n  secret_token: hunter2\n token: hunter2\n", "line 3 column 2"),
            ("auth:\n  secret_token: hunter2\n\ttoken: hunter2\n", "line 3 column 1"),
            ("auth: &hunter2\n  <<: *hunter3\n", "line 2 column 7"),
        ] {
            let error = Yaml::from_str::<Value>(text).unwrap_err().to_string();
            assert!(error.contains(place) && !error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn a_text_that_grows_while_it_is_read_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let error = Yaml::from_str::<Value>(&text).unwrap_err().to_string();
        assert!(error.contains("repetition limit exceeded"), "{error}");
        let deep = "[".repeat(10_000);
        let error = Yaml::from_str::<Value>(&deep).unwrap_err().to_string();
        assert!(error.contains("recursion limit exceeded"), "{error}");
    }
}
