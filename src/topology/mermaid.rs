//! The picture as a Mermaid flowchart, which a model reads as well.

use super::{Node, Topology};

/// The qubes as a flowchart from netvms to those behind them.
pub(crate) fn render_mermaid(topology: &Topology) -> String {
    let mut text = String::from("flowchart LR\n");
    for (place, node) in topology.nodes.iter().enumerate() {
        text.push_str(&format!("  q{place}[\"{}\"]\n", escape(&label(node))));
        if let Some(netvm) = node.netvm {
            text.push_str(&format!("  q{place} -->|netvm| q{netvm}\n"));
        }
        let dash = if node.vm.is_none() { ",stroke-dasharray:4" } else { "" };
        text.push_str(&format!(
            "  style q{place} stroke:{},stroke-width:3px{dash}\n",
            node.colour()
        ));
    }
    text
}

fn label(node: &Node) -> String {
    let [first, second] = node.lines();
    let mut label = node.name.clone();
    for line in [first, second].iter().filter(|line| !line.is_empty()) {
        label.push('\n');
        label.push_str(line);
    }
    label
}

/// Mermaid knows entities in quoted text.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("<br/>"),
            '"' => escaped.push_str("#quot;"),
            '<' => escaped.push_str("#lt;"),
            '>' => escaped.push_str("#gt;"),
            '#' => escaped.push_str("#35;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::tests::three;
    use super::*;

    #[test]
    fn qubes_have_their_colours_and_arrows_lead_to_netvms() {
        assert_eq!(
            render_mermaid(&three()),
            r##"flowchart LR
  q0["#lt;out-of-scope#gt;<br/>outside your scope"]
  style q0 stroke:#888a85,stroke-width:3px,stroke-dasharray:4
  q1["sys-firewall<br/>AppVM, Running, 10.137.0.5<br/>see exec:ask"]
  q1 -->|netvm| q0
  style q1 stroke:#73d216,stroke-width:3px
  q2["work<br/>AppVM, Running, 10.137.0.5<br/>see exec:ask"]
  q2 -->|netvm| q1
  style q2 stroke:#3465a4,stroke-width:3px
  q3["vault<br/>AppVM, Running<br/>see exec:ask"]
  style q3 stroke:#000000,stroke-width:3px
"##
        );
    }
}
