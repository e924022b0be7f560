//! The tools that the agent offers, and what the story showed of each.

use super::DemoError;

/// A row for each tool on offer, in the agent's order.
pub(super) struct Shown(Vec<(String, Vec<&'static str>)>);

impl Shown {
    /// Nothing is shown yet of what is on offer.
    pub(super) fn new(offered: impl IntoIterator<Item = String>) -> Self {
        Self(offered.into_iter().map(|tool| (tool, Vec::new())).collect())
    }

    /// What was shown of a tool; an error where the agent does not offer it, since a story without
    /// one of its tools is not told.
    pub(super) fn row(&mut self, tool: &str) -> Result<&mut Vec<&'static str>, DemoError> {
        let row = self.0.iter_mut().find(|(name, _)| name == tool);
        row.map(|(_, shown)| shown).ok_or_else(|| DemoError::NotOffered { tool: tool.to_owned() })
    }

    /// The table as lines; a tool that is not in the story is listed as such.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, shown) in &self.0 {
            if shown.is_empty() {
                lines.push(format!("{name:<20} (not in this story)"));
            }
            for (row, what) in shown.iter().enumerate() {
                lines.push(format!("{:<20} {what}", if row == 0 { name.as_str() } else { "" }));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Shown {
        Shown::new(["list_vms", "start_vm"].map(String::from))
    }

    #[test]
    fn a_tool_of_the_story_that_is_not_offered_is_an_error() {
        let error = shown().row("stop_vm").unwrap_err();
        assert_eq!(error.to_string(), "the agent offers no tool \"stop_vm\"");
        assert!(shown().row("start").is_err(), "a part of a name is no name");
    }

    #[test]
    fn a_tool_that_is_not_in_the_story_is_listed_in_its_place() {
        let mut shown = shown();
        for what in ["starts", "starts once"] {
            shown.row("start_vm").unwrap().push(what);
        }
        let lines = shown.lines();
        assert_eq!(
            lines,
            [
                "list_vms             (not in this story)",
                "start_vm             starts",
                "                     starts once",
            ]
        );
    }
}
