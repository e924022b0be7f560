//! Work that people ask for often, as prompts.

use rmcp::{
    ErrorData,
    model::{GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role},
};
use serde_json::Value;

/// The argument of prompts, and the variable of templates, that is the name of a qube.
pub(crate) const QUBE_ARGUMENTS: [&str; 2] = ["vm_name", "name"];

/// One prompt. `{ARGUMENT}` stands for an argument in its text.
struct Row {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    arguments: &'static [(&'static str, &'static str, bool)],
    text: &'static str,
}

const QUBE: (&str, &str, bool) = ("vm_name", "The qube, as list_vms names it.", true);

const PROMPTS: &[Row] = &[
    Row {
        name: "set_up_development_qube",
        title: "Set up a development qube",
        about: "Look at a qube and install what work on a project needs.",
        arguments: &[
            QUBE,
            ("project", "What is worked on there: a language, a tool, an address of sources.", true),
        ],
        text: "\
Set up the qube {vm_name} for development: {project}

1. Call list_vms; {vm_name} must be there with the powers exec and files. If a power is missing, \
say which and stop.
2. See what is there: the distribution (/etc/os-release), disk space, the tools that the project \
needs and their versions. One exec_in_vm with a short script does it.
3. Software: packages installed by the package manager into a qube that is based on a template are \
gone after its next shutdown. What has to stay goes beneath /home or /usr/local, or the user \
installs it in the template. Say so before you install anything, and list what you will do.
4. Long installations run as a job (start_job, job_output), not as one long call.
5. If something cannot be fetched, look at the network before you try again: vm_network_info, then \
firewall_list. Do not open the firewall without asking the user.
6. Check the result by building or running something small, and tell the user what was installed, \
where, and what will be lost at the next shutdown.",
    },
    Row {
        name: "find_why_no_network",
        title: "Find out why a qube has no network",
        about: "Walk from the qube outwards until the hop or the rule that stops it is found.",
        arguments: &[
            QUBE,
            ("destination", "What cannot be reached, as host or host:port.", false),
        ],
        text: "\
The qube {vm_name} cannot reach {destination}. Find out why; change nothing yet.

1. list_vms: is {vm_name} running, does it have a netvm and an IP address, is that netvm running?
2. If there is a tool diagnose_network, call it with the destination: it walks the chain of netvms \
and names the hop or the rule.
3. firewall_list of {vm_name}: the first rule that matches decides, what none matches is dropped; \
DNS needs a rule too (specialtarget=dns).
4. vm_network_info of {vm_name}: interface up, default route, name servers.
5. From inside, with exec_in_vm: does the name resolve (getent hosts), does the port answer?
6. The same for each netvm in scope, from {vm_name} outwards.

Then say in one sentence what stops it, how you know, and the one change that would mend it. Ask \
before you make it.",
    },
    Row {
        name: "review_firewall",
        title: "Review a firewall",
        about: "Explain the outgoing rules of a qube and what is wrong with them.",
        arguments: &[QUBE],
        text: "\
Review the outgoing firewall of the qube {vm_name}; change nothing.

1. firewall_list of {vm_name}. The first rule that matches decides; what none matches is dropped. A \
single \"accept\" is what a fresh qube has and lets everything out.
2. connect_tcp_policy with action \"list\": connections to other qubes that need no network.
3. Explain each rule in a line: what it lets through or stops, and whether an earlier rule makes it \
void.
4. Say what is wider than it looks: rules without port or protocol, whole networks, DNS to \
anywhere, rules that have expired or will.
5. Propose the smallest list that still lets the qube do its work, as calls of firewall_add and \
firewall_remove with `expect`, in an order that never leaves it wider than now. Ask before you \
make them.",
    },
];

/// The prompts as MCP lists them.
pub(crate) fn list() -> Vec<Prompt> {
    let argument = |(name, about, required): &(&str, &str, bool)| {
        PromptArgument::new(*name).with_description(*about).with_required(*required)
    };
    PROMPTS
        .iter()
        .map(|row| {
            let arguments = row.arguments.iter().map(argument).collect();
            Prompt::new(row.name, Some(row.about), Some(arguments)).with_title(row.title)
        })
        .collect()
}

/// A prompt with its arguments filled in.
pub(crate) fn render(name: &str, given: &JsonObject) -> Result<GetPromptResult, ErrorData> {
    let wrong = |message: String| ErrorData::invalid_params(message, None);
    let row = PROMPTS
        .iter()
        .find(|row| row.name == name)
        .ok_or_else(|| wrong(format!("there is no prompt {name:?}")))?;
    if let Some(name) =
        given.keys().find(|name| row.arguments.iter().all(|known| known.0 != **name))
    {
        return Err(wrong(format!("the prompt has no argument {name:?}")));
    }
    let mut text = row.text.to_owned();
    for (argument, _, required) in row.arguments {
        let value = match given.get(*argument).and_then(Value::as_str) {
            Some(value) if !value.trim().is_empty() => value,
            Some(_) | None if !required => "the outside world",
            Some(_) | None => return Err(wrong(format!("argument {argument:?} is missing"))),
        };
        text = text.replace(&format!("{{{argument}}}"), value);
    }
    let mut result = GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]);
    result.description = Some(row.about.into());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(value: Value) -> JsonObject {
        let Value::Object(given) = value else { panic!("not an object") };
        given
    }

    #[test]
    fn every_prompt_takes_what_it_lists_and_fills_it_in() {
        for prompt in list() {
            let arguments = prompt.arguments.unwrap();
            let all: JsonObject =
                arguments.iter().map(|one| (one.name.clone(), "XYZ".into())).collect();
            let result = render(&prompt.name, &all).unwrap();
            let text = serde_json::to_string(&result.messages).unwrap();
            assert!(text.contains("XYZ"), "{text}");
            for one in &arguments {
                assert!(!text.contains(&format!("{{{}}}", one.name)), "{text}");
            }
            assert!(render(&prompt.name, &JsonObject::new()).is_err());
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        let told = |name: &str, value| render(name, &given(value)).unwrap_err().message;
        assert_eq!(told("nope", json!({})), "there is no prompt \"nope\"");
        assert_eq!(told("review_firewall", json!({})), "argument \"vm_name\" is missing");
        assert_eq!(
            told("review_firewall", json!({"vm_name": "w", "x": "y"})),
            "the prompt has no argument \"x\""
        );
        let text = render("find_why_no_network", &given(json!({"vm_name": "w"}))).unwrap();
        assert!(format!("{text:?}").contains("w cannot reach the outside world"));
    }
}
