//! Tests of the room as a whole: the shipped example, every problem at once, what is printed, secrets.

mod example;
mod printed;
mod problems;
mod secrets;
mod unit;

use super::{Config, parse};

/// The shipped example, a test input.
const EXAMPLE: &str = include_str!("../../../config/site-agent.toml");

/// A source and an AMIE section with nothing but what is required.
const REQUIRED: &str = r#"
[cluster]
name = "linux"

[[source]]
name = "waldur"
kind = "waldur-policy"
url = "https://waldur.example.org/api/"
token_credential = "waldur-token"
offering = "5e1f0a3c9b7d4e2f8a6c1d0b3e5f7a90"
"#;

fn good(text: &str) -> Config {
    parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// All messages about a text that must be refused.
fn refused(text: &str) -> String {
    match parse(text, "test.toml") {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}
