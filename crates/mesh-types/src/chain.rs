use std::error::Error;

/// Puts an error and what caused it on one line, as logs and status fields have it.
///
/// Each `Display` says what was attempted and not its source, so nothing is told twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Step(&'static str, Option<Box<Step>>);

    impl fmt::Display for Step {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Step {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn every_cause_is_told_in_order() {
        let error = Step(
            "cannot start",
            Some(Box::new(Step(
                "no roster",
                Some(Box::new(Step("disk full", None))),
            ))),
        );
        assert_eq!(chain(&error), "cannot start: no roster: disk full");
        assert_eq!(chain(&Step("alone", None)), "alone");
    }
}
