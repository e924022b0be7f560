//! qubesd, asked byte by byte.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use admin_api::{EventDecoder, EventItem, Exception};
use salt_bridge_sim::Fault;

use super::machine::{Machine, PATIENCE};

#[test]
fn rules_come_back_in_canonical_form_and_are_kept_in_firewall_xml() {
    let machine = Machine::start();
    assert_eq!(machine.admin("admin.vm.firewall.Get+", "work"), "0\0action=accept\n");
    let file = machine.host.root().join("var/lib/qubes/appvms/work/firewall.xml");
    assert!(!file.exists());
    let before = machine.host.events().len();
    let request = b"admin.vm.firewall.Set+ dom0 name work\0\
                    proto=tcp dstports=80 action=accept dsthost=1.2.3.4\naction=drop\n";
    assert_eq!(machine.qubesd(request), b"0\0");
    let rules = "0\0action=accept dst4=1.2.3.4/32 proto=tcp dstports=80-80\naction=drop\n";
    assert_eq!(machine.admin("admin.vm.firewall.Get+", "work"), rules);
    let xml = std::fs::read_to_string(&file).unwrap();
    assert!(xml.contains("<property name=\"dsthost\">1.2.3.4/32</property>"), "{xml}");
    let events = machine.host.events().since(before);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].name, "firewall-changed");
    assert_eq!(machine.qubesd(b"admin.vm.firewall.Set+ dom0 name work\0action=maybe\n"), b"");
    assert_eq!(machine.admin("admin.vm.firewall.Get+", "work"), rules);
}

#[test]
fn a_listener_hears_what_happens_to_its_qube() {
    let machine = Machine::start();
    #[expect(clippy::disallowed_methods, reason = "the test is the client")]
    let mut stream = UnixStream::connect(machine.host.layout().qubesd_socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"admin.Events+ dom0 name work\0").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut decoder = EventDecoder::new();
    let mut next = || loop {
        if let Some(EventItem::Event(event)) = decoder.pop().unwrap() {
            return event;
        }
        let mut bytes = [0; 1000];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "the stream ended");
        decoder.push(&bytes[..count]);
    };
    assert_eq!(next().name, "connection-established");
    assert_eq!(machine.qubesd(b"admin.vm.property.Set+memory dom0 name dev\x00450"), b"0\0");
    assert_eq!(machine.qubesd(b"admin.vm.property.Set+memory dom0 name work\x00450"), b"0\0");
    assert_eq!(
        next().encode(),
        &b"1\0work\0property-pre-set:memory\0name\0memory\0newvalue\x00450\0oldvalue\x00400\0\0"[..]
    );
    assert_eq!(next().name, "property-set:memory");
}

#[test]
fn a_listener_that_is_not_dom0_hears_what_policy_lets_it_hear() {
    let machine = Machine::start();
    let policy = "admin.Events +domain-tag-add_heard salt-bridge work allow target=@adminvm\n";
    machine.host.set_policy("30-test.policy", policy).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test is the client")]
    let mut stream = UnixStream::connect(machine.host.layout().qubesd_socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"admin.Events+ salt-bridge name dom0\0").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut hello = [0; 27];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"1\0\0connection-established\0\0");
    for call in ["admin.vm.tag.Set+heard", "admin.vm.tag.Set+unheard"] {
        assert_eq!(machine.admin(call, "vault"), "0\0");
        assert_eq!(machine.admin(call, "work"), "0\0");
    }
    assert_eq!(machine.admin("admin.vm.tag.Remove+heard", "work"), "0\0");
    assert_eq!(machine.admin("admin.vm.tag.Set+heard", "work"), "0\0");
    let event = b"1\0work\0domain-tag-add:heard\0tag\0heard\0\0";
    let mut heard = vec![0; 2 * event.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, [&event[..], event].concat());
}

#[test]
fn the_events_of_changes_are_those_that_were_recorded() {
    let machine = Machine::start();
    let before = machine.host.events().len();
    for request in [
        "admin.vm.property.Set+memory dom0 name test\x00450",
        "admin.vm.property.Reset+memory dom0 name test\0",
        "admin.vm.tag.Set+evtag dom0 name test\0",
        "admin.vm.tag.Remove+evtag dom0 name test\0",
        "admin.vm.feature.Set+evfeat dom0 name test\0v",
        "admin.vm.feature.Set+evfeat dom0 name test\0w",
        "admin.vm.feature.Remove+evfeat dom0 name test\0",
        "admin.vm.property.Set+netvm dom0 name test\0sys-net",
        "admin.vm.property.Reset+netvm dom0 name test\0",
    ] {
        assert_eq!(machine.qubesd(request.as_bytes()), b"0\0", "{request}");
    }
    let events: Vec<String> = machine
        .host
        .events()
        .since(before)
        .iter()
        .map(|event| String::from_utf8(event.encode().to_vec()).unwrap().replace('\0', " "))
        .map(|line| line.trim_end().to_owned())
        .collect();
    assert_eq!(events, include_str!("changes.events").lines().collect::<Vec<_>>());
}

#[test]
fn faults_meet_the_calls_they_are_meant_for_and_end() {
    let machine = Machine::start();
    let state = || machine.admin("admin.vm.CurrentState+", "work");
    let list = || machine.admin("admin.vm.List+", "work");
    let exception = Exception::new("QubesVMNotFoundError", "No such domain: 'work'");
    for (fault, reply) in [
        (Fault::Empty, ""),
        (Fault::Bytes(b"7\0garbage".to_vec()), "7\0garbage"),
        (Fault::Exception(exception), "2\0QubesVMNotFoundError\0\0No such domain: 'work'\0"),
    ] {
        machine.host.set_fault("admin.vm.CurrentState", Some(fault));
        assert_eq!(state(), reply);
        assert!(list().starts_with("0\0work "));
    }
    machine.host.set_fault("admin.vm.CurrentState", None);
    assert!(state().starts_with("0\0mem="));
    machine.host.set_fault("admin.vm.tag.Set", Some(Fault::DoneButEmpty));
    assert_eq!(machine.admin("admin.vm.tag.Set+x", "work"), "");
    assert_eq!(machine.admin("admin.vm.tag.Get+x", "work"), "0\x001");
    machine.host.set_qubesd_present(false).unwrap();
    assert!(!machine.host.layout().qubesd_socket().exists());
    machine.host.set_qubesd_present(true).unwrap();
    assert!(list().starts_with("0\0work "));
}
