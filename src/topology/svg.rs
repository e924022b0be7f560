//! The picture as SVG: a row for each qube, indented by its distance from the outermost netvm.

use super::{Node, Topology};

const WIDTH: usize = 380;
const HEIGHT: usize = 64;
const GAP: usize = 16;
const INDENT: usize = 48;
const MARGIN: usize = 16;

/// The qubes as boxes in the colours of their labels, with arrows to their netvms.
pub(crate) fn render_svg(topology: &Topology) -> String {
    let deepest = topology.nodes.iter().map(|node| node.depth).max().unwrap_or(0);
    let width = 2 * MARGIN + deepest * INDENT + WIDTH;
    let height = 2 * MARGIN + topology.nodes.len() * (HEIGHT + GAP);
    let mut svg = format!(
        concat!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" "#,
            r#"viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="12">"#,
            "\n",
            r#"<defs><marker id="arrow" markerWidth="8" markerHeight="8" refX="7" refY="4" "#,
            r##"orient="auto"><path d="M0 0 8 4 0 8z" fill="#555753"/></marker></defs>"##,
            "\n",
            r##"<rect width="{w}" height="{h}" fill="#ffffff"/>"##,
            "\n"
        ),
        w = width,
        h = height
    );
    for (place, node) in topology.nodes.iter().enumerate() {
        if let Some((netvm, above)) =
            node.netvm.and_then(|netvm| topology.nodes.get(netvm).map(|above| (netvm, above)))
        {
            svg.push_str(&arrow(place, node, netvm, above));
        }
        svg.push_str(&draw(place, node));
    }
    svg.push_str("</svg>\n");
    svg
}

fn left(node: &Node) -> usize {
    MARGIN + node.depth * INDENT
}

fn top(place: usize) -> usize {
    MARGIN + place * (HEIGHT + GAP)
}

/// From the left edge of a qube to the lower edge of its netvm.
fn arrow(place: usize, node: &Node, netvm: usize, above: &Node) -> String {
    let (x, y) = (left(node), top(place) + HEIGHT / 2);
    let (to_x, to_y) = (left(above) + INDENT / 2, top(netvm) + HEIGHT);
    format!(
        "<path d=\"M{x} {y}H{to_x}V{to_y}\" fill=\"none\" stroke=\"#555753\" \
         marker-end=\"url(#arrow)\"/>\n"
    )
}

fn draw(place: usize, node: &Node) -> String {
    let (x, y, colour) = (left(node), top(place), node.colour());
    let dash = if node.vm.is_none() { " stroke-dasharray=\"4\"" } else { "" };
    let mut svg = format!(
        "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" \
         fill=\"#f8f8f7\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n\
         <rect x=\"{x}\" y=\"{y}\" width=\"10\" height=\"{HEIGHT}\" rx=\"4\" fill=\"{colour}\"/>\n"
    );
    let [first, second] = node.lines();
    let lines =
        [("16", " font-weight=\"bold\"", &node.name), ("12", "", &first), ("12", "", &second)];
    for (below, (size, weight, text)) in [22, 40, 56].iter().zip(lines) {
        let (x, y, text) = (x + 20, y + below, escape(text));
        svg.push_str(&format!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\"{weight}>{text}</text>\n"
        ));
    }
    svg
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::tests::{three, vm};
    use super::*;

    #[test]
    fn each_qube_is_a_box_and_each_netvm_an_arrow() {
        let svg = render_svg(&three());
        assert_eq!(svg.matches("rx=\"6\"").count(), 4);
        assert_eq!(svg.matches("marker-end").count(), 2);
        assert!(svg.contains("fill=\"#3465a4\""));
        assert!(svg.contains(">see exec:ask</text>"));
        assert!(svg.contains("&lt;out-of-scope&gt;"));
    }

    #[test]
    fn no_name_can_break_out_of_the_text() {
        let svg = render_svg(&Topology::new(vec![vm("a</text>\"&", "red", None)]));
        assert!(svg.contains("a&lt;/text&gt;&quot;&amp;"));
    }
}
