//! What the operator's own qrexec policy says of a `qubes.ConnectTCP` call.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use admin_api::QubeName;
use policy::{
    TcpRule,
    evaluate::{Decision, Denial, Policy, PolicyFiles, Request, System, SystemQube},
};

use crate::{
    error::Error,
    host::{Found, Host},
    paths::Paths,
};

/// The files that come with Qubes (`policy.d` of qubes-core-qrexec and qubes-core-admin): their
/// denials are defaults, which a rule of ours may go before. A file of any other name is the operator's.
const STOCK: [&str; 6] = [
    "35-compat.policy",
    "85-admin-backup-restore.policy",
    "90-admin-default.policy",
    "90-admin-policy-default.policy",
    "90-default.policy",
    "91-admin-default-deny.policy",
];

impl Host {
    /// Whether a line that the operator wrote denies the connection today, or asks. Our file comes before
    /// most of the operator's, so that a rule of ours would overrule it.
    pub(crate) async fn operator_denies(&self, rule: &TcpRule) -> Result<bool, Error> {
        let ours = [self.paths.services_policy(), self.paths.tcp_policy()];
        let files = read_policy(&self.paths, &ours).map_err(Error::File)?;
        let policy = Policy::parse(&files).map_err(|error| Error::File(io::Error::other(error)))?;
        let mut system = System::new();
        for name in [&rule.source, &rule.target] {
            if let Some(qube) = self.system_qube(name).await? {
                system.insert(name.as_str(), qube);
            }
        }
        let call = format!("qubes.ConnectTCP+{}", rule.port);
        let request = Request::of(&call, rule.source.as_str(), rule.target.as_str());
        let evaluation = policy.evaluate(&request, &system);
        // A rule of ours would also take away a question that the operator wants to be asked.
        let by_a_line = matches!(
            evaluation.decision,
            Decision::Deny { reason: Denial::Rule, .. } | Decision::Ask { .. }
        );
        let stock = |file: &str| {
            let name = file.rsplit('/').next().unwrap_or(file);
            STOCK.contains(&name)
        };
        Ok(by_a_line && evaluation.place.is_some_and(|place| !stock(&place.file)))
    }

    async fn system_qube(&self, name: &QubeName) -> Result<Option<SystemQube>, admin_api::Error> {
        Ok(self.find(name, true).await?.map(|found| found.system_qube()))
    }
}

impl Found {
    /// The qube as policy looks at it. Its tags must have been asked for.
    pub(crate) fn system_qube(&self) -> SystemQube {
        SystemQube {
            class: self.class.clone(),
            uuid: self.live.uuid.to_string(),
            tags: self.live.tags.iter().map(ToString::to_string).collect(),
            ..SystemQube::default()
        }
    }
}

/// All policy files but these, by the path that they have in dom0.
pub(crate) fn read_policy(paths: &Paths, but: &[PathBuf]) -> io::Result<PolicyFiles> {
    let mut files = PolicyFiles::new();
    for folder in paths.policy_folders() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if !path.is_file() || but.contains(&path) {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let below = path.strip_prefix(paths.root()).unwrap_or(&path);
            files.insert(&Path::new("/").join(below).to_string_lossy(), text);
        }
    }
    Ok(files)
}
