//! `firewall.xml`, in which dom0 keeps the rules of a qube: versions 1 (before R4.0) and 2.
//!
//! The reader sees what qubesd's `qubes/firewall.py` sees; a missing file means
//! [`default_rules`](crate::firewall::default_rules).

use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer, XmlVersion, escape};

use crate::firewall::{Action, Dst, Proto, Rule, RuleBuilder, RuleError, SpecialTarget};

/// A text that is no firewall.xml.
#[derive(Debug, thiserror::Error)]
pub enum FirewallXmlError {
    /// Not XML.
    #[error("firewall.xml is not well-formed")]
    Xml(#[from] quick_xml::Error),
    /// XML of another form.
    #[error("firewall.xml has no {0} where it is expected")]
    Shape(&'static str),
    /// A version that qubesd does not know either.
    #[error("firewall.xml has the unknown version {0:?}")]
    Version(String),
    /// A rule that qubesd would not load.
    #[error("firewall.xml has a rule that is none")]
    Rule(#[from] RuleError),
}

/// Reads the rules, expired ones among them.
pub fn parse(text: &str) -> Result<Vec<Rule>, FirewallXmlError> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut document = Document::default();
    loop {
        match reader.read_event()? {
            Event::Start(element) => document.open(&element)?,
            Event::End(_) => document.close()?,
            Event::Text(text) => document.text(&text.xml10_content()),
            Event::CData(text) => document.text(&text.xml10_content()),
            Event::GeneralRef(name) => {
                let character = name.resolve_char_ref()?.map(String::from);
                let known = || escape::resolve_predefined_entity(&name).map(str::to_owned);
                let text = character.or_else(known).ok_or(FirewallXmlError::Shape("entity"))?;
                document.text(&text);
            }
            Event::DocType(_) => return Err(FirewallXmlError::Shape("document type")),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return document.finish(),
        }
    }
}

/// The rules of a version 1 that says what happens to all other packets.
#[derive(Clone, Copy, Debug)]
enum Version {
    One(Action),
    Two,
}

/// What has been read so far.
#[derive(Default)]
struct Document {
    // The names of the open elements; at most as deep as anything of interest lies.
    path: Vec<String>,
    depth: usize,
    version: Option<Version>,
    rules: Vec<Rule>,
    has_rules: bool,
    rule: RuleBuilder,
    property: Option<String>,
    value: String,
}

const RULES: usize = 2;
const RULE: usize = 3;
const PROPERTIES: usize = 4;
const PROPERTY: usize = 5;

impl Document {
    fn open(&mut self, element: &BytesStart<'_>) -> Result<(), FirewallXmlError> {
        self.depth += 1;
        if self.depth <= PROPERTY {
            self.path.push(element.name().as_ref().to_owned());
        }
        match (self.version, self.depth) {
            (None, _) => self.version = Some(self.root(element)?),
            (Some(_), 1) => return Err(FirewallXmlError::Shape("end")),
            (Some(Version::One(default)), RULES) => self.rules.push(version_one(element, default)?),
            (Some(Version::Two), RULES) => self.has_rules |= self.is_at(&["rules"]),
            (Some(Version::Two), RULE) => self.rule = RuleBuilder::default(),
            (Some(Version::Two), PROPERTY) if self.is_property() => {
                let name = attribute(element, "name")?;
                self.property = Some(name.ok_or(FirewallXmlError::Shape("name of a property"))?);
                self.value.clear();
            }
            (Some(_), _) => {}
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), FirewallXmlError> {
        if let (PROPERTY, Some(property)) = (self.depth, self.property.take()) {
            // lxml gives no text for an empty element, and qubesd takes that as not set.
            if !self.value.is_empty() {
                self.rule.set(&property, &self.value)?;
            }
        }
        if matches!(self.version, Some(Version::Two))
            && self.depth == RULE
            && self.is_at(&["rules"])
        {
            self.rules.push(std::mem::take(&mut self.rule).finish()?);
        }
        if self.depth <= PROPERTY {
            self.path.pop();
        }
        self.depth -= 1;
        Ok(())
    }

    fn text(&mut self, text: &str) {
        if self.depth == PROPERTY && self.property.is_some() {
            self.value.push_str(text);
        }
    }

    fn finish(mut self) -> Result<Vec<Rule>, FirewallXmlError> {
        match self.version {
            None => return Err(FirewallXmlError::Shape("element")),
            Some(_) if self.depth > 0 => return Err(FirewallXmlError::Shape("end")),
            Some(Version::Two) if !self.has_rules => return Err(FirewallXmlError::Shape("rules")),
            Some(Version::One(Action::Accept)) => self.rules.push(Rule::new(Action::Accept)),
            Some(Version::One(Action::Drop) | Version::Two) => {}
        }
        Ok(self.rules)
    }

    fn root(&mut self, element: &BytesStart<'_>) -> Result<Version, FirewallXmlError> {
        match attribute(element, "version")?.as_deref() {
            Some("2") => Ok(Version::Two),
            None | Some("1") => {
                let policy = attribute(element, "policy")?;
                let default = match policy.as_deref() {
                    Some("allow") => Action::Accept,
                    Some("deny") => Action::Drop,
                    Some(_) | None => return Err(FirewallXmlError::Shape("policy")),
                };
                let action = |flag| {
                    let flag = attribute(element, flag)?.or_else(|| policy.clone());
                    let allowed = flag.as_deref() == Some("allow");
                    Ok::<_, FirewallXmlError>(if allowed { Action::Accept } else { Action::Drop })
                };
                let dns = Some(SpecialTarget::Dns);
                let dns = Rule { specialtarget: dns, ..Rule::new(action("dns")?) };
                let icmp = Rule { proto: Some(Proto::Icmp), ..Rule::new(action("icmp")?) };
                self.rules.extend([dns, icmp]);
                Ok(Version::One(default))
            }
            Some(other) => Err(FirewallXmlError::Version(other.to_owned())),
        }
    }

    fn is_at(&self, names: &[&str]) -> bool {
        let below_root = self.path.iter().skip(1).map(String::as_str);
        below_root.take(names.len()).eq(names.iter().copied())
    }

    fn is_property(&self) -> bool {
        let names = self.path.get(PROPERTIES - 1..).unwrap_or_default();
        self.is_at(&["rules"]) && names == ["properties", "property"]
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, FirewallXmlError> {
    let attribute = element.try_get_attribute(name).map_err(quick_xml::Error::from)?;
    let value =
        attribute.map(|found| found.normalized_value(XmlVersion::Implicit1_0)).transpose()?;
    Ok(value.map(std::borrow::Cow::into_owned))
}

/// A rule of version 1 makes an exception from the default.
fn version_one(element: &BytesStart<'_>, default: Action) -> Result<Rule, FirewallXmlError> {
    let get = |name| attribute(element, name).map(|found| found.filter(|value| !value.is_empty()));
    let exception = match default {
        Action::Accept => Action::Drop,
        Action::Drop => Action::Accept,
    };
    let mut rule = RuleBuilder::default();
    rule.set("action", exception.as_str())?;
    if let Some(address) = get("address")? {
        rule.set("dsthost", &version_one_network(address, get("netmask")?)?)?;
    }
    let ports = match (get("port")?, get("toport")?) {
        (Some(port), Some(last)) => Some(format!("{port}-{last}")),
        (port, _) => port,
    };
    let proto = get("proto")?.or_else(|| ports.is_some().then(|| "tcp".to_owned()));
    for (option, value) in [
        ("proto", proto.filter(|proto| proto != "any")),
        ("dstports", ports),
        ("expire", get("expire")?),
    ] {
        if let Some(value) = value {
            rule.set(option, &value)?;
        }
    }
    Ok(rule.finish()?)
}

/// Address and length of the prefix. As in qubesd a name ignores it, a prefix written into the
/// address wins, without one it is 32, and 0 means a single address.
fn version_one_network(address: String, netmask: Option<String>) -> Result<String, RuleError> {
    let prefix = match (Dst::parse(&address)?, netmask.as_deref()) {
        (Dst::Host(_), _) => return Ok(address),
        (Dst::Dst4 { .. } | Dst::Dst6 { .. }, _) if address.contains('/') => return Ok(address),
        (Dst::Dst4 { .. } | Dst::Dst6 { .. }, Some("0")) => return Ok(address),
        (Dst::Dst4 { .. } | Dst::Dst6 { .. }, None) => "32",
        (Dst::Dst4 { .. } | Dst::Dst6 { .. }, Some(netmask)) => netmask,
    };
    Ok(format!("{address}/{prefix}"))
}

/// The file of version 2 that qubesd writes for these rules, byte for byte. qubesd leaves out rules
/// that have expired: do so before.
pub fn render(rules: &[Rule]) -> Result<String, FirewallXmlError> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    let root = BytesStart::new("firewall").with_attributes([("version", "2")]);
    write(&mut writer, Event::Start(root))?;
    if rules.is_empty() {
        write(&mut writer, Event::Empty(BytesStart::new("rules")))?;
    } else {
        write(&mut writer, Event::Start(BytesStart::new("rules")))?;
        for rule in rules {
            write_rule(&mut writer, rule)?;
        }
        write(&mut writer, Event::End(BytesEnd::new("rules")))?;
    }
    write(&mut writer, Event::End(BytesEnd::new("firewall")))?;
    let text = String::from_utf8(writer.into_inner());
    text.map(|text| text + "\n").map_err(|_| FirewallXmlError::Shape("text"))
}

fn write_rule(writer: &mut Writer<Vec<u8>>, rule: &Rule) -> Result<(), FirewallXmlError> {
    write(writer, Event::Start(BytesStart::new("rule")))?;
    write(writer, Event::Start(BytesStart::new("properties")))?;
    let comment = rule.comment.as_ref().map(|comment| ("comment", comment.to_string()));
    let (action, others): (Vec<_>, Vec<_>) = rule
        .options()
        .filter(|(option, _)| *option != "comment")
        .map(|(option, value)| match (option, rule.dstports) {
            ("dst4" | "dst6", _) => ("dsthost", value),
            ("dstports", Some(ports)) => (option, ports.short()),
            (other, _) => (other, value),
        })
        .partition(|(option, _)| *option == "action");
    for (option, value) in action.into_iter().chain(comment).chain(others) {
        let element = BytesStart::new("property").with_attributes([("name", option)]);
        write(writer, Event::Start(element))?;
        write(writer, Event::Text(BytesText::new(&value)))?;
        write(writer, Event::End(BytesEnd::new("property")))?;
    }
    write(writer, Event::End(BytesEnd::new("properties")))?;
    write(writer, Event::End(BytesEnd::new("rule")))
}

fn write(writer: &mut Writer<Vec<u8>>, event: Event<'_>) -> Result<(), FirewallXmlError> {
    Ok(writer.write_event(event).map_err(quick_xml::Error::from)?)
}

/// Reads whatever it is given and asserts that what was read is written so that it reads the same.
pub fn fuzz_firewall_xml(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(rules) = parse(text) else { return };
    let again = render(&rules).and_then(|text| parse(&text));
    assert!(again.is_ok_and(|again| again == rules), "rules change on their way through the file");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{default_rules, parse_rules, render_rules};
    use proptest::prelude::*;

    #[test]
    fn version_2_is_written_as_qubesd_writes_it() {
        let rules = parse_rules(
            "action=accept expire=1795391845 dst4=192.0.2.0/24 proto=tcp dstports=80 comment=a b\naction=drop\n",
        )
        .unwrap();
        fuzz_firewall_xml(render(&rules).unwrap().as_bytes());
        let text = r#"<firewall version="2">
  <rules>
    <rule>
      <properties>
        <property name="action">accept</property>
        <property name="comment">a b</property>
        <property name="expire">1795391845</property>
        <property name="dsthost">192.0.2.0/24</property>
        <property name="proto">tcp</property>
        <property name="dstports">80</property>
      </properties>
    </rule>
    <rule>
      <properties>
        <property name="action">drop</property>
      </properties>
    </rule>
  </rules>
</firewall>
"#;
        assert_eq!(render(&rules).unwrap(), text);
        assert_eq!(parse(text).unwrap(), rules);
        assert_eq!(render(&[]).unwrap(), "<firewall version=\"2\">\n  <rules/>\n</firewall>\n");
        assert_eq!(parse(&render(&[]).unwrap()).unwrap(), []);
    }

    #[test]
    fn version_1_makes_exceptions_from_a_policy_of_deny() {
        let text = r#"<QubesFirewallRules dns="allow" icmp="allow" policy="deny" yumProxy="allow">
            <rule address="192.168.0.0" proto="tcp" netmask="24" port="80"/>
            <rule address="example.org" port="443" toport="445"/>
            <rule address="10.0.0.1" proto="any"/>
            <!-- no rule -->
        </QubesFirewallRules>"#;
        let rules = "action=accept specialtarget=dns\naction=accept proto=icmp\n\
            action=accept dst4=192.168.0.0/24 proto=tcp dstports=80-80\n\
            action=accept dsthost=example.org proto=tcp dstports=443-445\naction=accept dst4=10.0.0.1/32\n";
        assert_eq!(render_rules(&parse(text).unwrap()), rules);
    }

    #[test]
    fn version_1_with_a_policy_of_allow_ends_by_accepting() {
        let text = r#"<QubesFirewallRules policy="allow" icmp="deny"><rule address="10.0.0.0" netmask="8" expire="1000"/></QubesFirewallRules>"#;
        let rules = "action=accept specialtarget=dns\naction=drop proto=icmp\n\
            action=drop expire=1000 dst4=10.0.0.0/8\naction=accept\n";
        assert_eq!(render_rules(&parse(text).unwrap()), rules);
    }

    #[test]
    fn what_qubesd_would_not_load_is_an_error() {
        use FirewallXmlError as E;
        for bad in [
            "",
            "x",
            "<firewall version=\"2\">",
            "<firewall version=\"2\"/>",
            "<a/>",
            "<a policy=\"maybe\"/>",
        ] {
            assert!(matches!(parse(bad), Err(E::Shape(_))), "{bad}: {:?}", parse(bad));
        }
        assert!(matches!(parse("<a version=\"3\"/>"), Err(E::Version(version)) if version == "3"));
        assert!(matches!(parse("<a></b>"), Err(E::Shape(_) | E::Xml(_))));
        let rule = |inside: &str| {
            parse(&format!(
                "<firewall version=\"2\"><rules><rule><properties>{inside}</properties></rule></rules></firewall>"
            ))
        };
        assert!(matches!(rule(""), Err(E::Rule(RuleError::NoAction))));
        assert!(matches!(
            rule("<property name=\"x\">y</property>"),
            Err(E::Rule(RuleError::Unknown(_)))
        ));
        assert!(matches!(rule("<property>y</property>"), Err(E::Shape(_))));
        let good =
            rule("<property name=\"action\">acc&#101;pt</property><property name=\"comment\"/>");
        assert_eq!(good.unwrap(), default_rules());
        assert!(matches!(parse("<!DOCTYPE a><a policy=\"allow\"/>"), Err(E::Shape(_))));
        assert!(matches!(parse("<a policy=\"allow\"/><b/>"), Err(E::Shape(_))));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "<firewall version=\"2\">", "<rules>", "<rule>", "<properties>", "<property name=\"action\">", "drop",
                "</property>", "</properties>", "</rule>", "</rules>", "</firewall>", "<a policy=\"deny\">", "</a>",
                "<rule port=\"1\"/>", "&amp;", "&#65;", "&x;", "<![CDATA[", "]]>", "<", "\u{e9}", "<property/>",
            ]), 0..20),
        ) {
            fuzz_firewall_xml(pieces.concat().as_bytes());
        }
    }
}
