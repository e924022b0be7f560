//! Replays what was recorded between clients and a real qubesd: our bytes are the recorded ones, and
//! our decoders give a value, the exception, or the silence that came.
//!
//! `TRANSCRIPTS=FOLDER` replays the `*.jsonl` files and the `firewall-xml` of another folder.

#[cfg(test)]
#[path = "transcripts/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::{
        Skipped, Tally, Verdict, exchange, folder, is_default, recordings, stream,
    };
    use admin_api::firewall::{Rule, parse_rules, render_rules};
    use admin_api::firewall_xml;
    use std::collections::BTreeMap;
    use std::fs;

    #[test]
    fn every_recorded_exchange_is_replayed_or_counted() {
        let mut tally = Tally::default();
        for (file, line) in recordings() {
            let verdict = if line.request_b64.is_none() {
                Verdict::Skipped(Skipped::NoExchange)
            } else if line.stream_b64.is_some() {
                stream(&line)
            } else {
                exchange(&line)
            };
            tally.count(&file, verdict);
        }
        #[expect(clippy::print_stdout, reason = "says what was not replayed, and why")]
        {
            println!("{tally}");
        }
        assert!(tally.typed > 0, "nothing was replayed");
        if is_default() {
            assert_eq!(tally.to_string(), include_str!("transcripts/tally.txt"));
        }
    }

    #[test]
    fn every_recorded_firewall_xml_reads_and_writes_as_qubesd_does() {
        let mut files: BTreeMap<String, [Option<String>; 3]> = BTreeMap::new();
        let names = fs::read_dir(folder().join("firewall-xml")).into_iter().flatten();
        for path in names.map(|entry| entry.unwrap().path()) {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let kinds = ["set", "get", "xml"];
            let kind = kinds.iter().position(|kind| *kind == path.extension().unwrap()).unwrap();
            files.entry(name).or_default()[kind] = Some(fs::read_to_string(path).unwrap());
        }
        let mut seen = 0;
        for (name, texts) in files {
            let [set, get, xml] = texts.map(Option::unwrap);
            same_rules(&name, Some(&set), &get, &xml);
            seen += 1;
        }
        for (_, line) in recordings() {
            if let Some(xml) = &line.firewall_xml {
                let set = line.set_payload.as_deref().filter(|_| line.set_ok == Some(true));
                same_rules(
                    line.label.as_deref().unwrap_or_default(),
                    set,
                    line.get_content.as_deref().unwrap(),
                    xml,
                );
                seen += 1;
            }
        }
        assert!(seen > 0 || !is_default());
    }

    fn same_rules(name: &str, set: Option<&str>, get: &str, xml: &str) {
        let got = parse_rules(get).unwrap();
        let kept = firewall_xml::parse(xml).unwrap();
        assert_eq!(render_rules(&got), get, "{name}: the canonical form");
        assert_eq!(kept, got, "{name}: the file and Get");
        assert_eq!(firewall_xml::render(&kept).unwrap(), xml, "{name}: the written file");
        if let Some(set) = set {
            let mut asked: Vec<Rule> = parse_rules(set).unwrap();
            // Whether a rule had expired when it was recorded shows in Get alone.
            asked.retain(|rule| rule.expire.is_none() || got.contains(rule));
            assert_eq!(asked, got, "{name}: what was set and Get");
        }
    }
}
