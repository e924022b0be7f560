//! Our evaluator against what Qubes' own policy parser decided, call by call.

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use policy::evaluate::{
        Decision, Denial, Evaluation, Policy, PolicyFiles, Request, System, SystemQube,
    };
    use serde_json::Value;

    /// The name of the one file of a policy that is recorded as a text.
    const FILE: &str = "30-test.policy";

    /// The text of a file of recordings; none where another folder does not have it.
    #[expect(clippy::disallowed_methods, reason = "a test may be pointed at other recordings")]
    fn recordings(name: &str) -> Option<String> {
        let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"));
        match std::env::var_os("TRANSCRIPTS") {
            Some(folder) => std::fs::read_to_string(PathBuf::from(folder).join(name)).ok(),
            None => Some(std::fs::read_to_string(own.join(name)).unwrap()),
        }
    }

    fn text(value: &Value) -> &str {
        value.as_str().unwrap_or_default()
    }

    fn texts(value: &Value) -> Vec<String> {
        value.as_array().into_iter().flatten().map(|item| text(item).into()).collect()
    }

    fn system(info: &Value) -> System {
        let qube = |info: &Value| SystemQube {
            class: text(&info["type"]).into(),
            uuid: text(&info["uuid"]).into(),
            tags: texts(&info["tags"]),
            template_for_dispvms: info["template_for_dispvms"] == true,
            default_dispvm: info["default_dispvm"].as_str().map(Into::into),
            running: info["power_state"] == "Running",
            guivm: info["guivm"].as_str().map(Into::into),
            internal: info["internal"] == true,
        };
        let domains = info["domains"].as_object().unwrap();
        let named = domains.iter().filter(|(name, _)| !name.starts_with("uuid:"));
        named.map(|(name, info)| (name.as_str(), qube(info))).collect()
    }

    /// A policy is recorded as the text of one file, or as the texts of several.
    fn files(policy: &Value) -> PolicyFiles {
        match policy.as_object() {
            Some(several) => several.iter().map(|(name, file)| (name, text(file))).collect(),
            None => PolicyFiles::from_iter([(FILE, text(policy))]),
        }
    }

    /// What qrexec does and the evaluator leaves out, by intention.
    fn left_out(record: &Value) -> Option<&'static str> {
        let relayed = record["request"]["requested_source"].as_str();
        relayed.filter(|source| !source.is_empty()).map(|_| "calls that a relay makes")
    }

    /// The reason in our words, and whether the message names the line.
    fn denial(message: &str) -> Option<(Denial, bool)> {
        let known = [
            ("denied by policy", Denial::Rule, true),
            ("no matching rule", Denial::NoRule, false),
            ("but no target is specified", Denial::NoTarget, true),
            ("but no target is available", Denial::NothingToChoose, true),
            ("but no DispVM base is set", Denial::NoDisposableTemplate, true),
            ("would require autostart", Denial::NeedsAutostart, false),
            ("not a template for dispvm", Denial::NotADisposableTemplate, false),
        ];
        let found = known.into_iter().find(|(words, _, _)| message.contains(words))?;
        Some((found.1, found.2))
    }

    fn agrees(record: &Value, ours: &Evaluation) -> bool {
        let recorded_notify = record["notify"] == true;
        let text_of = |key: &str| record[key].as_str().map(String::from);
        match &ours.decision {
            Decision::Allow { target, user, autostart, notify } => {
                record["result"] == "allow"
                    && text_of("target").as_ref() == Some(target)
                    && text_of("user") == *user
                    && record["autostart"] == *autostart
                    && recorded_notify == *notify
            }
            Decision::Ask { targets, default_target, user, autostart, notify } => {
                let mut recorded = texts(&record["targets_for_ask"]);
                recorded.sort();
                record["result"] == "ask"
                    && recorded == *targets
                    && text_of("default_target") == *default_target
                    && text_of("user") == *user
                    && record["autostart"] == *autostart
                    && recorded_notify == *notify
            }
            Decision::Deny { reason, notify } => {
                // Where qrexec's parser raised something else than a denial, the call is refused too.
                if record["result"] == "crash" {
                    return true;
                }
                let message = text(&record["message"]);
                let Some((recorded, names_line)) = denial(message) else { return false };
                let place = ours.place.as_ref().map(ToString::to_string).unwrap_or_default();
                let place = place.rsplit('/').next().unwrap_or_default();
                let at =
                    message.split_whitespace().any(|word| word.rsplit('/').next() == Some(place));
                record["result"] == "deny"
                    && recorded == *reason
                    && recorded_notify == *notify
                    && (!names_line || at)
            }
        }
    }

    /// Compares every record of a file; the number of records compared.
    fn compare(recordings: &str) -> usize {
        let mut lines = recordings.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let first = lines.next().unwrap();
        let system = system(&first["system_info"]);
        let (mut seen, mut wrong) = (0, Vec::new());
        let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
        for record in lines {
            if let Some(reason) = left_out(&record) {
                *skipped.entry(reason).or_default() += 1;
                continue;
            }
            let policy = match record.get("text").or_else(|| record.get("files")) {
                Some(own) => own,
                None => &first["policies"][text(&record["policy"])],
            };
            seen += 1;
            if !is_decided_alike(&record, policy, &system) {
                wrong.push(record);
            }
        }
        assert!(wrong.is_empty(), "{} of {seen} differ, first {}", wrong.len(), wrong[0]);
        assert!(seen > 0, "no decision was recorded; left out: {skipped:?}");
        seen
    }

    fn is_decided_alike(record: &Value, policy: &Value, system: &System) -> bool {
        let call = &record["request"];
        let request = Request {
            service: text(&call["service"]),
            argument: text(&call["argument"]),
            source: text(&call["source"]),
            target: text(&call["target"]),
        };
        match Policy::parse(&files(policy)) {
            Ok(policy) => agrees(record, &policy.evaluate(&request, system)),
            Err(error) => {
                let place = error.place.to_string();
                let place = format!("/{}: ", place.rsplit('/').next().unwrap_or_default());
                record["result"] == "syntax error" && text(&record["message"]).contains(&place)
            }
        }
    }

    #[test]
    fn every_recorded_decision_is_ours_too() {
        let recorded = recordings("15-policy-decisions.jsonl").unwrap();
        assert!(compare(&recorded) >= recorded.lines().count() / 2);
    }

    #[test]
    fn decisions_over_random_policies_of_several_files_are_ours_too() {
        if let Some(recorded) = recordings("random-policy-decisions.jsonl") {
            compare(&recorded);
        }
    }
}
