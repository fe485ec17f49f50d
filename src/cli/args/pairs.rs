//! Values of options that are two things joined by `=`.

/// `KEY=VALUE`, split at the first `=`.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    split(text, "KEY", "VALUE")
}

/// `FROM=TO`, split at the first `=`.
pub(super) fn from_to(text: &str) -> Result<(String, String), String> {
    split(text, "FROM", "TO")
}

fn split(text: &str, left: &str, right: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("nothing stands before '=': write {left}={right}")),
        Some((key, value)) => Ok((key.into(), value.into())),
        None => Err(format!("it has no '=': write {left}={right}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(key_value("a="), Ok(("a".into(), String::new())));
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(key_value("a").unwrap_err(), "it has no '=': write KEY=VALUE");
        assert_eq!(from_to("=x").unwrap_err(), "nothing stands before '=': write FROM=TO");
    }
}
