//! What qubes there are and how they are: `admin.vm.List`, `admin.vm.CurrentState`, removal, notes.

use std::fmt;

use super::{Call, ReplyError, nothing, number, owned_text, text, value};
use crate::{Destination, QubeName, Request, Uuid};

/// A line of `admin.vm.List`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedQube {
    /// Its name; `dom0` for dom0.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// Its power state.
    pub state: PowerState,
    /// Its UUID; R4.2 does not tell.
    pub uuid: Option<Uuid>,
}

impl ListedQube {
    /// Its name as a type, unless it is dom0's.
    pub fn qube(&self) -> Option<QubeName> {
        QubeName::parse(&self.name).ok()
    }

    /// The line, without its end.
    pub fn render_line(&self) -> String {
        let Self { name, class, state, uuid } = self;
        let uuid = uuid.as_ref().map(|uuid| format!(" uuid={uuid}")).unwrap_or_default();
        format!("{name} class={class} state={state}{uuid}")
    }

    fn parse(line: &str) -> Result<Self, ReplyError> {
        let mut words = line.split(' ');
        let name = words.next().filter(|name| !name.is_empty());
        let (class, state) = (value(words.clone(), "class")?, value(words.clone(), "state")?);
        Ok(Self {
            name: name.ok_or(ReplyError::Missing { key: "name" })?.to_owned(),
            class: Class::from(class),
            state: PowerState::from(state),
            uuid: value(words, "uuid").ok().map(Uuid::parse).transpose()?,
        })
    }
}

macro_rules! words {
    ($($(#[$doc:meta])* $kind:ident { $($(#[$item_doc:meta])* $item:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $kind {
            $($(#[$item_doc])* $item,)*
            /// A word that this program does not know.
            Other(String),
        }

        impl From<&str> for $kind {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$item,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl $kind {
            /// The word that qubesd uses.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$item => $word,)*
                    Self::Other(other) => other,
                }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(self.as_str())
            }
        }
    )*};
}

words! {
    /// The class of a qube.
    Class {
        /// dom0.
        AdminVm = "AdminVM",
        /// Root from a template, private volume of its own.
        AppVm = "AppVM",
        /// Nothing outlives it; made from an AppVM that is a template for disposables.
        DispVm = "DispVM",
        /// On another machine; always "running", and cannot be started or stopped.
        RemoteVm = "RemoteVM",
        /// Both volumes its own.
        StandaloneVm = "StandaloneVM",
        /// Gives its root volume to others.
        TemplateVm = "TemplateVM",
    }

    /// The power state of a qube.
    PowerState {
        /// It does not run.
        Halted = "Halted",
        /// It starts: qrexec is not there yet.
        Transient = "Transient",
        /// It runs.
        Running = "Running",
        /// It stands still.
        Paused = "Paused",
        /// It sleeps.
        Suspended = "Suspended",
        /// It shuts down.
        Halting = "Halting",
        /// It is nearly down.
        Dying = "Dying",
        /// It broke.
        Crashed = "Crashed",
        /// qubesd cannot tell.
        Unknown = "NA",
    }
}

/// The reply of `admin.vm.CurrentState`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentState {
    /// Memory it has now, in KiB; 0 when halted.
    pub mem: u64,
    /// The most memory it can have, in KiB; 0 when it has no limit or is halted.
    pub mem_static_max: u64,
    /// Processor time used since its start, in nanoseconds.
    pub cputime: u64,
    /// Its power state.
    pub power_state: PowerState,
}

impl CurrentState {
    /// The reply as text.
    pub fn render(&self) -> String {
        let Self { mem, mem_static_max, cputime, power_state } = self;
        format!(
            "mem={mem} mem_static_max={mem_static_max} cputime={cputime} power_state={power_state}"
        )
    }
}

/// All qubes when aimed at dom0 (dom0 among them), else the one.
pub fn list(destination: Destination) -> Call<Vec<ListedQube>> {
    Call::new(Request::new("admin.vm.List", destination), |content| {
        text(content)?.lines().map(ListedQube::parse).collect()
    })
}

/// How a qube is now.
pub fn current_state(destination: Destination) -> Call<CurrentState> {
    Call::new(Request::new("admin.vm.CurrentState", destination), |content| {
        let words = text(content)?.split(' ');
        let amount = |key| number(key, value(words.clone(), key)?);
        Ok(CurrentState {
            mem: amount("mem")?,
            mem_static_max: amount("mem_static_max")?,
            cputime: amount("cputime")?,
            power_state: PowerState::from(value(words.clone(), "power_state")?),
        })
    })
}

/// The classes of qubes that this system knows.
pub fn classes() -> Call<Vec<Class>> {
    Call::new(Request::new("admin.vmclass.List", Destination::Dom0), |content| {
        Ok(text(content)?.lines().map(Class::from).collect())
    })
}

/// Removes a halted qube and all its volumes.
pub fn remove(destination: Destination) -> Call<()> {
    Call::new(Request::new("admin.vm.Remove", destination), nothing)
}

/// The operator's notes on a qube. qubesd replaces what it cannot show by `_`. New in R4.3.
pub fn notes(destination: Destination) -> Call<String> {
    Call::new(Request::new("admin.vm.notes.Get", destination), owned_text)
}

/// Replaces the notes on a qube. They cannot be made empty again. New in R4.3.
pub fn set_notes(destination: Destination, notes: &str) -> Call<()> {
    let request = Request::new("admin.vm.notes.Set", destination);
    Call::new(request.payload(notes.to_owned()), nothing)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, work};
    use super::*;

    #[test]
    fn list_gives_one_qube_a_line() {
        let call = list(Destination::Dom0);
        assert_eq!(&sent(&call)[..], b"admin.vm.List+ dom0 name dom0\0");
        let reply = b"0\0dom0 class=AdminVM state=Running uuid=00000000-0000-0000-0000-000000000000\nwork class=AppVM state=Paused uuid=731881c4-00db-4f7d-b875-47a0ea7bad96\n";
        let qubes = call.answer(reply).unwrap();
        assert_eq!(qubes.len(), 2);
        assert_eq!((qubes[0].name.as_str(), qubes[0].qube()), ("dom0", None));
        assert_eq!(qubes[1].qube(), QubeName::parse("work").ok());
        assert_eq!((&qubes[1].class, &qubes[1].state), (&Class::AppVm, &PowerState::Paused));
        let lines: String = qubes.iter().map(|qube| qube.render_line() + "\n").collect();
        assert_eq!(lines.as_bytes(), &reply[2..]);
    }

    #[test]
    fn a_listed_qube_may_lack_a_uuid_and_have_unknown_keys_and_words() {
        let qubes = list(work()).answer(b"0\0work new=1 state=Melting class=CloudVM\n").unwrap();
        assert_eq!(qubes[0].uuid, None);
        assert_eq!(qubes[0].state, PowerState::Other("Melting".into()));
        assert_eq!(qubes[0].class.as_str(), "CloudVM");
        for bad in [
            &b"0\0work class=AppVM\n"[..],
            b"0\0\n",
            b"0\0work class=A state=B uuid=1\n",
            b"0\0\xff\n",
        ] {
            assert!(list(work()).answer(bad).is_err());
        }
    }

    #[test]
    fn current_state_is_amounts_and_a_power_state() {
        let call = current_state(work());
        assert_eq!(&sent(&call)[..], b"admin.vm.CurrentState+ dom0 name work\0");
        let reply = "mem=409600 mem_static_max=4096000 cputime=148435899 power_state=Paused";
        let state = call.answer(format!("0\0{reply}").as_bytes()).unwrap();
        assert_eq!((state.mem, &state.power_state), (409_600, &PowerState::Paused));
        assert_eq!(state.render(), reply);
        assert!(call.answer(b"0\0mem=x mem_static_max=0 cputime=0 power_state=Halted").is_err());
    }

    #[test]
    fn classes_removal_and_notes_have_the_methods_of_qubesd() {
        assert_eq!(&sent(&classes())[..], b"admin.vmclass.List+ dom0 name dom0\0");
        assert_eq!(classes().answer(b"0\0AppVM\nDispVM\n").unwrap(), [Class::AppVm, Class::DispVm]);
        assert_eq!(&sent(&remove(work()))[..], b"admin.vm.Remove+ dom0 name work\0");
        assert_eq!(&sent(&notes(work()))[..], b"admin.vm.notes.Get+ dom0 name work\0");
        assert_eq!(
            notes(work()).answer(b"0\0line one\nline two\n").unwrap(),
            "line one\nline two\n"
        );
        assert_eq!(
            &sent(&set_notes(work(), "a\nb"))[..],
            b"admin.vm.notes.Set+ dom0 name work\0a\nb"
        );
    }
}
