//! What was found, and how it is told.

use serde::Serialize;

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Health {
    /// As it should be.
    Good,
    /// Not wrong, but the operator should know.
    Note,
    /// To be mended.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// How good it is.
    pub(super) health: Health,
    /// What it is about.
    pub(super) area: &'static str,
    /// What was seen.
    pub(super) what: String,
    /// What to do about it; empty when nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) mend: String,
}

/// All that was found, in the order in which it was looked at.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Something is as it should be.
    pub(super) fn good(&mut self, area: &'static str, what: impl Into<String>) {
        self.push(Health::Good, area, what.into(), String::new());
    }

    /// The operator should know something.
    pub(super) fn note(
        &mut self,
        area: &'static str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.push(Health::Note, area, what.into(), mend.into());
    }

    /// Something is to be mended.
    pub(super) fn wrong(
        &mut self,
        area: &'static str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.push(Health::Wrong, area, what.into(), mend.into());
    }

    fn push(&mut self, health: Health, area: &'static str, what: String, mend: String) {
        self.findings.push(Finding { health, area, what, mend });
    }

    /// How many findings there are of this health.
    pub(super) fn count(&self, health: Health) -> usize {
        self.findings.iter().filter(|finding| finding.health == health).count()
    }

    /// Everything, for a program.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "healthy": self.count(Health::Wrong) == 0,
            "findings": self.findings,
        })
    }

    /// Everything, for a person.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Finding { health, area, what, mend } in &self.findings {
            let word = match health {
                Health::Good => "good ",
                Health::Note => "note ",
                Health::Wrong => "WRONG",
            };
            text.push_str(&format!("{word}  {area}: {what}\n"));
            if !mend.is_empty() {
                text.push_str(&format!("       {mend}\n"));
            }
        }
        let (wrong, notes) = (self.count(Health::Wrong), self.count(Health::Note));
        text.push_str(&match (wrong, notes) {
            (0, 0) => "\neverything is as it should be\n".into(),
            (0, _) => format!("\nnothing is wrong; to know: {notes}\n"),
            (_, _) => format!("\nto mend: {wrong}; to know: {notes}\n"),
        });
        text
    }

    /// The findings.
    #[cfg(test)]
    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_out_and_says_how_to_mend() {
        let mut report = Report::default();
        report.good("a", "fine");
        assert_eq!(report.text(), "good   a: fine\n\neverything is as it should be\n");
        report.note("b", "odd", "");
        report.wrong("c", "bad", "do this");
        assert_eq!(
            report.text(),
            "good   a: fine\nnote   b: odd\nWRONG  c: bad\n       do this\n\nto mend: 1; to know: 1\n"
        );
        assert_eq!(report.json()["healthy"], false);
        assert_eq!(report.json()["findings"][2]["mend"], "do this");
    }
}
