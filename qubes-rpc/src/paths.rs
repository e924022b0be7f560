//! Where dom0's side finds and keeps its files, each below one root.

use std::path::{Path, PathBuf};

/// The files of one dom0: the real one below `/`, or another below `--root DIR`.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The files below this folder.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The folder that stands for `/`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// qubesd's socket.
    pub fn qubesd(&self) -> PathBuf {
        self.at("var/run/qubesd.sock")
    }

    /// The operator's file.
    pub fn scope(&self) -> PathBuf {
        self.at("etc/qubes/salt-bridge-allowed-vms")
    }

    /// The folder of qrexec policy.
    pub fn policy(&self) -> PathBuf {
        self.at("etc/qubes/policy.d")
    }

    /// Every folder from which qrexec reads policy.
    pub fn policy_folders(&self) -> [PathBuf; 4] {
        [
            "etc/qubes/policy.d",
            "etc/qubes/policy.d/include",
            "run/qubes/policy.d",
            // In the form of Qubes 4.0, read where a file says `!compat-4.0`.
            "etc/qubes-rpc/policy",
        ]
        .map(|folder| self.at(folder))
    }

    /// The policy file that admits the agents' calls.
    pub fn services_policy(&self) -> PathBuf {
        self.at("etc/qubes/policy.d/30-salt-bridge.policy")
    }

    /// The policy file with the `qubes.ConnectTCP` rules.
    pub fn tcp_policy(&self) -> PathBuf {
        self.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy")
    }

    /// The folder of qrexec services.
    pub fn services(&self) -> PathBuf {
        self.at("etc/qubes-rpc")
    }

    /// The socket on which qrexec delivers calls.
    pub fn qrexec_socket(&self) -> PathBuf {
        self.at("run/salt-bridge/qrexec.sock")
    }

    /// The socket of the helper that writes `qubes.ConnectTCP` policy.
    pub fn tcp_policy_socket(&self) -> PathBuf {
        self.at("run/salt-bridge/tcp-policy.sock")
    }

    /// The rule sets that were in force before each change of a firewall.
    pub fn firewall_history(&self) -> PathBuf {
        self.at("var/lib/salt-bridge/firewall")
    }

    /// What the operator set.
    pub fn settings(&self) -> PathBuf {
        self.at("etc/salt-bridge/settings.toml")
    }

    /// What the operator told qubes-mcp.
    pub fn qubes_mcp(&self) -> PathBuf {
        self.at("etc/qmcp")
    }

    /// The qubes that are being made, and those that are to be removed, a file for each.
    pub fn births(&self) -> PathBuf {
        self.at("var/lib/salt-bridge/ledger/births")
    }

    /// What an installation is doing; missing when none is under way.
    pub fn install_journal(&self) -> PathBuf {
        self.at("var/lib/salt-bridge/journal")
    }

    /// Locked, not exclusively, by every call as long as it is under way.
    pub fn calls_lock(&self) -> PathBuf {
        self.at("var/lib/salt-bridge/ledger/calls.lock")
    }

    /// The jobs that agents started, a file for each.
    pub fn jobs(&self) -> PathBuf {
        self.at("var/lib/salt-bridge/ledger/jobs")
    }

    /// The file that stands there while everything is paused.
    pub fn paused(&self) -> PathBuf {
        self.at("etc/salt-bridge/paused")
    }

    /// The audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.at("var/log/salt-bridge/audit.jsonl")
    }

    /// The file that names the last line of the audit log.
    pub fn audit_head(&self) -> PathBuf {
        self.at("var/log/salt-bridge/audit-head")
    }

    /// Where qubesd may keep the firewall of a qube of this name.
    pub fn firewall_xml(&self, name: &str) -> [PathBuf; 2] {
        ["appvms", "vm-templates"]
            .map(|kind| self.at("var/lib/qubes").join(kind).join(name).join("firewall.xml"))
    }

    /// Where `qrexec-client` may be.
    pub fn qrexec_client(&self) -> [PathBuf; 2] {
        ["usr/bin/qrexec-client", "usr/lib/qubes/qrexec-client"].map(|path| self.at(path))
    }
}
