//! Changes of a firewall that are made at the same time come out as if they had been made one after
//! another, answers and all.

#[cfg(test)]
mod tests {
    use admin_api::{firewall::parse_rules, firewall_xml};
    use futures_util::future::join_all;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::fs;

    use crate::support::{Answer, Dom0, SCOPE, on_one_thread};

    const RULES: &str = "action=accept dst4=10.0.0.1/32\n\
        action=drop dst4=10.0.0.2/32\n\
        action=accept\n";

    /// One change: the service and its parameters.
    type Edit = (&'static str, Value);

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let expect = prop::sample::select(vec![
            Value::Null,
            json!("action=drop dst4=10.0.0.2/32"),
            json!("action=accept"),
        ]);
        let args = prop::sample::select(vec!["10.0.0.3", "10.0.0.4 tcp 22", "10.0.0.1", ""]);
        let position = prop::option::of(0..5u32);
        let add = (args, position, any::<bool>()).prop_map(|(args, position, drops)| {
            let action = if drops { "drop" } else { "accept" };
            ("FirewallAdd", json!({"action": action, "args": args, "position": position}))
        });
        let remove = (0..5u32, expect).prop_map(|(number, expect)| {
            ("FirewallRemove", json!({"rule_number": number, "expect": expect}))
        });
        prop::collection::vec(prop_oneof![add, remove], 2..5)
    }

    /// Puts the rules back to what they were.
    fn reset(dom0: &Dom0) {
        let xml = firewall_xml::render(&parse_rules(RULES).unwrap()).unwrap();
        fs::write(dom0.at("var/lib/qubes/appvms/work/firewall.xml"), xml).unwrap();
        *dom0.qubesd.rules.borrow_mut() = RULES.into();
    }

    /// What came back, and the rules in the end.
    type Outcome = (Vec<Answer>, String);

    async fn at_once(dom0: &Dom0, edits: &[Edit]) -> Outcome {
        reset(dom0);
        let calls = edits.iter().map(|(service, args)| dom0.call(service, "work", args.clone()));
        let answers = join_all(calls).await;
        (answers, dom0.qubesd.rules.borrow().clone())
    }

    async fn in_order(dom0: &Dom0, edits: &[Edit], order: &[usize]) -> Outcome {
        reset(dom0);
        let mut answers: Vec<Option<Answer>> = edits.iter().map(|_| None).collect();
        for place in order {
            let (service, args) = &edits[*place];
            answers[*place] = Some(dom0.call(service, "work", args.clone()).await);
        }
        (answers.into_iter().map(Option::unwrap).collect(), dom0.qubesd.rules.borrow().clone())
    }

    /// Every order of so many things.
    fn orders(count: usize) -> Vec<Vec<usize>> {
        let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
        let shorter = orders(last).into_iter();
        shorter
            .flat_map(|order| {
                (0..count).map(move |place| {
                    let mut order = order.clone();
                    order.insert(place, last);
                    order
                })
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn changes_at_once_equal_some_order_of_them(edits in edits()) {
            on_one_thread(async {
                let dom0 = Dom0::start(&SCOPE.replace("work\n", "work see,net\n"));
                let together = at_once(&dom0, &edits).await;
                let mut serial = Vec::new();
                for order in orders(edits.len()) {
                    let outcome = in_order(&dom0, &edits, &order).await;
                    if outcome == together {
                        return;
                    }
                    serial.push((order, outcome));
                }
                panic!("{edits:#?}\ngave {together:#?}\nbut in order {serial:#?}");
            });
        }
    }

    #[test]
    fn every_order_is_tried() {
        assert_eq!(orders(3).len(), 6);
        assert_eq!(orders(4).len(), 24);
    }
}
