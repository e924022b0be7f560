//! Who gets the network from whom, as a picture.

mod mermaid;
mod svg;
mod text;

use std::collections::BTreeMap;

use crate::vms::Vm;

pub(crate) use mermaid::render_mermaid;
pub(crate) use svg::render_svg;
pub(crate) use text::render_text;

/// A qube in the picture.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its name, or the sign for one that may not be known.
    name: String,
    /// What is known of it; nothing for a netvm outside the scope.
    vm: Option<Vm>,
    /// The place of its netvm among the nodes.
    netvm: Option<usize>,
    /// How many qubes are between it and the end of its chain of netvms.
    depth: usize,
}

/// The qubes, netvms before those that hang on them, neighbours together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    nodes: Vec<Node>,
}

impl Topology {
    /// The picture of these qubes.
    pub(crate) fn new(vms: Vec<Vm>) -> Self {
        let mut known: BTreeMap<String, Option<Vm>> = BTreeMap::new();
        for vm in vms {
            if let Some(netvm) = &vm.netvm {
                known.entry(netvm.clone()).or_default();
            }
            known.insert(vm.name.clone(), Some(vm));
        }
        let mut topology = Self { nodes: Vec::with_capacity(known.len()) };
        let roots: Vec<String> = known
            .iter()
            .filter(|(_, vm)| vm.as_ref().is_none_or(|vm| vm.netvm.is_none()))
            .map(|(name, _)| name.clone())
            .collect();
        for root in roots {
            topology.place(&mut known, root, None, 0);
        }
        // Qubes that are one another's netvms, which qubesd never allows: each by itself.
        while let Some(name) = known.keys().next().cloned() {
            topology.place(&mut known, name, None, 0);
        }
        topology
    }

    fn place(
        &mut self,
        known: &mut BTreeMap<String, Option<Vm>>,
        name: String,
        netvm: Option<usize>,
        depth: usize,
    ) {
        let Some(vm) = known.remove(&name) else { return };
        let own = self.nodes.len();
        let behind: Vec<String> = known
            .iter()
            .filter(|(_, other)| {
                other.as_ref().is_some_and(|other| other.netvm.as_deref() == Some(name.as_str()))
            })
            .map(|(name, _)| name.clone())
            .collect();
        self.nodes.push(Node { name, vm, netvm, depth });
        for name in behind {
            self.place(known, name, Some(own), depth.saturating_add(1));
        }
    }
}

impl Node {
    /// The colour of the label, grey for what is outside the scope.
    fn colour(&self) -> &'static str {
        // The colours that `qubes.xml` has for the labels of a fresh installation.
        match self.vm.as_ref().map(|vm| vm.label.as_str()) {
            Some("red") => "#cc0000",
            Some("orange") => "#f57900",
            Some("yellow") => "#edd400",
            Some("green") => "#73d216",
            Some("gray") => "#555753",
            Some("blue") => "#3465a4",
            Some("purple") => "#75507b",
            Some("black") => "#000000",
            Some(_) | None => "#888a85",
        }
    }

    /// What stands below the name.
    fn lines(&self) -> [String; 2] {
        match &self.vm {
            Some(vm) => {
                let ip = vm.ip.as_deref().map(|ip| format!(", {ip}")).unwrap_or_default();
                [format!("{}, {}{ip}", vm.class, vm.state), vm.powers.join(" ")]
            }
            None => ["outside your scope".into(), String::new()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn vm(name: &str, label: &str, netvm: Option<&str>) -> Vm {
        Vm {
            name: name.into(),
            state: "Running".into(),
            class: "AppVM".into(),
            netvm: netvm.map(Into::into),
            ip: netvm.map(|_| "10.137.0.5".into()),
            label: label.into(),
            powers: vec!["see".into(), "exec:ask".into()],
        }
    }

    pub(super) fn three() -> Topology {
        Topology::new(vec![
            vm("work", "blue", Some("sys-firewall")),
            vm("sys-firewall", "green", Some("<out-of-scope>")),
            vm("vault", "black", None),
        ])
    }

    #[test]
    fn netvms_stand_before_those_that_hang_on_them() {
        let topology = three();
        let told: Vec<_> = topology
            .nodes
            .iter()
            .map(|node| (node.name.as_str(), node.netvm, node.depth))
            .collect();
        assert_eq!(
            told,
            [
                ("<out-of-scope>", None, 0),
                ("sys-firewall", Some(0), 1),
                ("work", Some(1), 2),
                ("vault", None, 0),
            ]
        );
    }

    #[test]
    fn a_ring_of_netvms_is_drawn_all_the_same() {
        let topology = Topology::new(vec![vm("a", "red", Some("b")), vm("b", "red", Some("a"))]);
        assert_eq!(topology.nodes.len(), 2);
    }
}
