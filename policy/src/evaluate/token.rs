//! The words of a policy line that stand for qubes, and what each of them matches.

use std::collections::BTreeSet;

use super::system::{ADMIN_VM, DOM0, System, is_dom0};

/// The prefix of the keyword for a disposable of a given template.
pub(super) const DISPVM_OF: &str = "@dispvm:";
const DISPVM: &str = "@dispvm";
const DEFAULT: &str = "@default";

/// Where a word stands, which limits what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The third word of a line.
    Source,
    /// The fourth word of a line.
    Target,
    /// Behind `target=` or `default_target=`.
    Redirect,
    /// What the caller asked for.
    Intended,
}

/// What a word stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `*`: everything.
    Anything,
    /// `@anyvm`: everything but dom0.
    AnyVm,
    /// `@adminvm`.
    AdminVm,
    /// `@default`: no target, or one that does not exist.
    Default,
    /// `@dispvm`: a disposable of the source's default template.
    DispVm,
    /// `@dispvm:NAME`.
    DispVmOf(String),
    /// `@dispvm:@tag:TAG`.
    DispVmTag(String),
    /// `@type:CLASS`.
    Type(String),
    /// `@tag:TAG`.
    Tag(String),
    /// A name, `uuid:…`, or `dom0`.
    Name(String),
}

impl Token {
    /// Reads a word; nothing when it is empty or may not stand in this column.
    pub(super) fn parse(word: &str, column: Column) -> Option<Self> {
        let token = match word {
            "*" => Self::Anything,
            "@anyvm" => Self::AnyVm,
            ADMIN_VM => Self::AdminVm,
            DEFAULT => Self::Default,
            DISPVM => Self::DispVm,
            _ if word.starts_with('@') => Self::parse_prefixed(word)?,
            "" => return None,
            _ => Self::Name(word.into()),
        };
        token.fits(column).then_some(token)
    }

    /// A value that begins with `@` belongs to a longer prefix, or to none.
    fn parse_prefixed(word: &str) -> Option<Self> {
        let behind = |prefix| {
            word.strip_prefix(prefix)
                .filter(|value: &&str| !value.is_empty() && !value.starts_with('@'))
                .map(String::from)
        };
        behind("@type:")
            .map(Self::Type)
            .or_else(|| behind("@tag:").map(Self::Tag))
            .or_else(|| behind(DISPVM_OF).map(Self::DispVmOf))
            .or_else(|| behind("@dispvm:@tag:").map(Self::DispVmTag))
    }

    const fn fits(&self, column: Column) -> bool {
        match self {
            Self::Anything | Self::AnyVm | Self::DispVmTag(_) | Self::Type(_) | Self::Tag(_) => {
                matches!(column, Column::Source | Column::Target)
            }
            Self::Default => matches!(column, Column::Target | Column::Intended),
            Self::DispVm => !matches!(column, Column::Source),
            Self::AdminVm | Self::DispVmOf(_) | Self::Name(_) => true,
        }
    }

    /// The word.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Anything => "*".into(),
            Self::AnyVm => "@anyvm".into(),
            Self::AdminVm => ADMIN_VM.into(),
            Self::Default => DEFAULT.into(),
            Self::DispVm => DISPVM.into(),
            Self::DispVmOf(name) => format!("{DISPVM_OF}{name}"),
            Self::DispVmTag(tag) => format!("@dispvm:@tag:{tag}"),
            Self::Type(class) => format!("@type:{class}"),
            Self::Tag(tag) => format!("@tag:{tag}"),
            Self::Name(name) => name.clone(),
        }
    }

    /// Whether this word of a line's source matches the calling qube.
    pub(super) fn matches_source(&self, source: &str, system: &System) -> bool {
        self.matches_text(source, system)
    }

    /// Whether this word of a line's target matches what the caller asked for.
    pub(super) fn matches_target(&self, target: &Self, source: &str, system: &System) -> bool {
        let Some(template) = target.template(source, system) else {
            return self.matches_text(&target.text(), system);
        };
        match self {
            // For a plain `@dispvm` qrexec compares the words, not the qubes.
            Self::DispVmOf(own) if *target == Self::DispVm => *own == template,
            Self::DispVmOf(own) => system.same(own, &template),
            Self::DispVmTag(tag) => system
                .get(&template)
                .is_some_and(|(_, qube)| qube.template_for_dispvms && qube.tags.contains(tag)),
            Self::Anything | Self::AnyVm | Self::AdminVm | Self::Default => {
                self.matches_text(&target.text(), system)
            }
            Self::DispVm | Self::Type(_) | Self::Tag(_) | Self::Name(_) => {
                self.matches_text(&target.text(), system)
            }
        }
    }

    /// The template of the disposable that the caller asked for, if it asked for one.
    fn template(&self, source: &str, system: &System) -> Option<String> {
        match self {
            Self::DispVm => default_template(source, system),
            Self::DispVmOf(name) => Some(name.clone()),
            Self::Anything | Self::AnyVm | Self::AdminVm | Self::Default => None,
            Self::DispVmTag(_) | Self::Type(_) | Self::Tag(_) | Self::Name(_) => None,
        }
    }

    fn matches_text(&self, text: &str, system: &System) -> bool {
        match self {
            Self::Anything => true,
            Self::AnyVm => !is_dom0(text),
            Self::AdminVm => is_dom0(text),
            Self::Default => text == DEFAULT,
            Self::DispVm => text == DISPVM,
            Self::Name(name) if is_dom0(name) => is_dom0(text),
            Self::Name(name) => system.same(name, text),
            Self::Type(class) => system.get(text).is_some_and(|(_, qube)| qube.class == *class),
            Self::Tag(tag) => system.get(text).is_some_and(|(_, qube)| qube.tags.contains(tag)),
            Self::DispVmOf(_) | Self::DispVmTag(_) => false,
        }
    }

    /// The target as the caller meant it: a qube that does not exist becomes `@default`. Nothing
    /// when it is a disposable of a qube that is no disposable template.
    pub(super) fn verified(self, system: &System) -> Option<Self> {
        let template =
            |name: &String| system.get(name).is_some_and(|(_, qube)| qube.template_for_dispvms);
        match &self {
            Self::Name(name) if system.get(name).is_none() => Some(Self::Default),
            Self::DispVmOf(name) if !template(name) => None,
            Self::Anything | Self::AnyVm | Self::AdminVm | Self::Default | Self::DispVm => {
                Some(self)
            }
            Self::DispVmOf(_)
            | Self::DispVmTag(_)
            | Self::Type(_)
            | Self::Tag(_)
            | Self::Name(_) => Some(self),
        }
    }

    /// Every target that this word stands for, for the operator to choose from.
    pub(super) fn expand(&self, system: &System) -> BTreeSet<String> {
        let templates = |wanted: &dyn Fn(&[String]) -> bool| -> Vec<String> {
            system
                .iter()
                .filter(|(_, qube)| qube.template_for_dispvms && wanted(&qube.tags))
                .map(|(name, _)| format!("{DISPVM_OF}{name}"))
                .collect()
        };
        let every = |with_dom0: bool| -> Vec<String> {
            let names =
                system.iter().map(|(name, _)| name).filter(|name| with_dom0 || *name != DOM0);
            let mut all: Vec<String> = names.map(Into::into).collect();
            all.extend(templates(&|_| true));
            all.push(DISPVM.into());
            all
        };
        let targets: Vec<String> = match self {
            Self::Anything => every(true),
            Self::AnyVm => every(false),
            Self::Default => Vec::new(),
            Self::AdminVm | Self::DispVm => vec![self.text()],
            Self::Name(name) => system.get(name).map(|(name, _)| name.into()).into_iter().collect(),
            Self::DispVmOf(name) => match system.get(name) {
                Some((name, qube)) if qube.template_for_dispvms => {
                    vec![format!("{DISPVM_OF}{name}")]
                }
                Some(_) | None => Vec::new(),
            },
            Self::DispVmTag(tag) => templates(&|tags| tags.contains(tag)),
            Self::Type(_) | Self::Tag(_) => system
                .iter()
                .map(|(name, _)| name)
                .filter(|name| self.matches_text(name, system))
                .map(Into::into)
                .collect(),
        };
        targets.into_iter().collect()
    }
}

/// The disposable template that `@dispvm` means for calls of this qube.
pub(super) fn default_template(source: &str, system: &System) -> Option<String> {
    system.get(source)?.1.default_dispvm.clone()
}
