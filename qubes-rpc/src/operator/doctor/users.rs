//! The daemon's user and the group `qubes`, from /etc/passwd and /etc/group read as text.

use std::fs;

use super::report::Report;
use crate::paths::Paths;

const AREA: &str = "users";
/// The daemon's user.
const USER: &str = "salt-bridge";
/// Whoever is in it has power over all qubes.
const GROUP: &str = "qubes";

/// Who has to own what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owners {
    /// Whose the files that are trusted have to be.
    pub(super) trusted: u32,
    /// The daemon's user; none where it is not known.
    pub(super) daemon: Option<u32>,
    /// The group `qubes`; none where it is not known.
    pub(super) group: Option<u32>,
}

/// Looks at both files. Below another root than `/` everything belongs to its owner.
pub(super) fn inspect(paths: &Paths, trusted: u32, report: &mut Report) -> Owners {
    let read = |name: &str, report: &mut Report| {
        let path = paths.root().join("etc").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| {
            let mend = "every Linux system has this file: restore it from a backup";
            report.wrong(AREA, format!("cannot read {}: {error}", path.display()), mend);
            String::new()
        })
    };
    let (passwd, group) = (read("passwd", report), read("group", report));
    let owners = inspect_texts(&passwd, &group, trusted, report);
    if paths.root() == std::path::Path::new("/") {
        return owners;
    }
    Owners { trusted, daemon: Some(trusted), group: None }
}

fn inspect_texts(passwd: &str, group: &str, trusted: u32, report: &mut Report) -> Owners {
    let users: Vec<User<'_>> = passwd.lines().filter_map(User::parse).collect();
    let line = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let qubes = line.filter(|fields| fields.first() == Some(&GROUP)).find_map(|fields| {
        let gid: u32 = fields.get(2)?.parse().ok()?;
        let members = fields.get(3)?.split(',').filter(|name| !name.is_empty()).collect();
        Some((gid, members))
    });
    let daemon = users.iter().find(|user| user.name == USER);
    inspect_daemon(daemon, qubes.as_ref().map(|(gid, _)| *gid), report);
    match &qubes {
        Some((_, members)) => inspect_members(members, &users, report),
        None => report.wrong(
            AREA,
            format!("/etc/group has no group {GROUP}"),
            "this is no dom0 of Qubes OS, or its group file is damaged",
        ),
    }
    Owners { trusted, daemon: daemon.map(|user| user.uid), group: qubes.map(|(gid, _)| gid) }
}

fn inspect_daemon(daemon: Option<&User<'_>>, qubes: Option<u32>, report: &mut Report) {
    match daemon {
        None => report.wrong(
            AREA,
            format!("there is no user {USER}, as whom the daemon runs"),
            "run: systemd-sysusers",
        ),
        Some(user) if user.uid == 0 => report.wrong(
            AREA,
            format!("the user {USER} has uid 0, so that the daemon would run as root"),
            format!("remove the line of {USER} from /etc/passwd and run: systemd-sysusers"),
        ),
        Some(user) if Some(user.gid) == qubes => report.wrong(
            AREA,
            format!("the group {GROUP} is the user {USER}'s own group"),
            format!("remove the user with `userdel {USER}` and run: systemd-sysusers"),
        ),
        Some(_) => report.good(AREA, format!("the daemon's user is {USER}")),
    }
}

/// qubesd runs qrexec-daemon as the first member, so that has to be the person who logs in.
fn inspect_members(members: &Vec<&str>, users: &[User<'_>], report: &mut Report) {
    if members.contains(&USER) {
        report.wrong(
            AREA,
            format!("{USER} is a member of the group {GROUP} in /etc/group"),
            format!("the unit adds the group itself; run: gpasswd -d {USER} {GROUP}"),
        );
    }
    let Some(first) = members.first() else {
        return report.wrong(
            AREA,
            format!("the group {GROUP} has no member, so that qubesd cannot start qubes"),
            format!("add the user who logs in: gpasswd -a USER {GROUP}"),
        );
    };
    match users.iter().find(|user| user.name == *first) {
        Some(user) if (1000..65_534).contains(&user.uid) => {
            report.good(AREA, format!("{first} is the first member of the group {GROUP}"));
        }
        Some(_) if *first == USER => {}
        Some(_) | None => report.wrong(
            AREA,
            format!("the first member of the group {GROUP}, {first}, is nobody who logs in"),
            format!("qubesd starts qrexec as that user; make the one who logs in the first in the line of {GROUP} in /etc/group"),
        ),
    }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> User<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { name, uid, gid })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Health, *};

    const PASSWD: &str = "\
root:x:0:0::/root:/bin/bash
salt-bridge:x:990:985:Salt Bridge daemon:/:/usr/sbin/nologin
user:x:1000:1000::/home/user:/bin/bash
";

    fn found(passwd: &str, group: &str) -> (Owners, String) {
        let mut report = Report::default();
        let owners = inspect_texts(passwd, group, 0, &mut report);
        let wrong = report.findings().iter().filter(|finding| finding.health == Health::Wrong);
        (owners, wrong.map(|finding| format!("{}\n", finding.what)).collect())
    }

    #[test]
    fn the_daemons_user_is_no_member_of_the_group() {
        let (owners, wrong) = found(PASSWD, "root:x:0:\nqubes:x:98:user\n");
        assert_eq!(owners, Owners { trusted: 0, daemon: Some(990), group: Some(98) });
        assert_eq!(wrong, "");
        for members in ["salt-bridge", "salt-bridge,user", "user,salt-bridge"] {
            let (_, wrong) = found(PASSWD, &format!("qubes:x:98:{members}\n"));
            assert_eq!(
                wrong, "salt-bridge is a member of the group qubes in /etc/group\n",
                "{members}"
            );
        }
    }

    #[test]
    fn the_first_member_of_the_group_is_a_person() {
        for (group, word) in [
            ("qubes:x:98:\n", "has no member"),
            ("qubes:x:98:root,user\n", "nobody who logs in"),
            ("qubes:x:98:gone,user\n", "nobody who logs in"),
            ("other:x:98:user\n", "no group qubes"),
            ("", "no group qubes"),
        ] {
            let (_, wrong) = found(PASSWD, group);
            assert!(wrong.contains(word), "{group}: {wrong}");
        }
    }

    #[test]
    fn the_daemons_user_is_there_and_is_not_root() {
        for (line, word) in [
            ("", "there is no user"),
            ("salt-bridge:x:0:0::/:/bin/sh\n", "uid 0"),
            ("salt-bridge:x:990:98::/:/bin/sh\n", "own group"),
        ] {
            let passwd = format!("user:x:1000:1000::/:/bin/sh\n{line}");
            let (_, wrong) = found(&passwd, "qubes:x:98:user\n");
            assert!(wrong.contains(word), "{line}: {wrong}");
        }
    }
}
