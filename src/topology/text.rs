//! The picture as text, for a terminal.

use super::Topology;

/// A line for each qube, indented below its netvm.
pub(crate) fn render_text(topology: &Topology) -> String {
    let mut text = String::new();
    for node in &topology.nodes {
        let indent = "   ".repeat(node.depth.saturating_sub(1));
        let branch = if node.depth == 0 { "" } else { "└─ " };
        let label = node.vm.as_ref().map(|vm| format!(" [{}]", vm.label)).unwrap_or_default();
        let [first, second] = node.lines();
        text.push_str(&format!("{indent}{branch}{}{label}: {first}", node.name));
        if !second.is_empty() {
            text.push_str(&format!("; {second}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::three;
    use super::*;

    #[test]
    fn qubes_stand_below_their_netvms() {
        assert_eq!(
            render_text(&three()),
            "<out-of-scope>: outside your scope\n\
             └─ sys-firewall [green]: AppVM, Running, 10.137.0.5; see exec:ask\n   \
             └─ work [blue]: AppVM, Running, 10.137.0.5; see exec:ask\n\
             vault [black]: AppVM, Running; see exec:ask\n"
        );
    }
}
