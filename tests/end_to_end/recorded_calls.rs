//! The calls that were recorded of the older program, made again in their order: every answer is what
//! it was, or stands in [`DIFFERENCES`] with the reason. The table is `docs/older-program.md`.

use serde::Deserialize;
use serde_json::Value;

use super::machine::{Machine, Told, on_host};

/// One recorded call. Of a traceback the last line was kept.
#[derive(Debug, Deserialize)]
struct Recorded {
    note: String,
    service: String,
    payload: Option<Value>,
    stdout: String,
    stderr: String,
    exit_code: i32,
}

/// How an answer differs.
#[derive(Clone, Copy, Debug)]
enum Here {
    /// It is this text, with exit code 0.
    Text(&'static str),
    /// This table of rules.
    Table(&'static str),
    /// One line that begins with `ERROR: `, with exit code 0.
    Error,
    /// The recorded lines, in the order in which the two streams came, and the exit code below.
    CodeBelow,
    /// The recorded text without its last line.
    WithoutLastLine,
    /// The same lines before the in-qube state, and the same headings in their order.
    Headings,
}

/// Recorded calls by their notes, how they are answered here, and why.
type Difference = (&'static [&'static str], Here, &'static str);

const RULES: &str = "\
NO  ACTION  HOST         PROTOCOL  PORT(S)  SPECIAL TARGET  ICMP TYPE  EXPIRE  COMMENT
0   accept  10.0.0.1/32  tcp       443      -               -          -       -
1   accept  -            udp       53       -               -          -       -
2   accept  10.1.2.3/32  tcp       22       -               -          -       -
3   accept  example.org  -         -        -               -          -       -
4   accept  -            -         -        dns             -          -       -
5   accept  -            icmp      -        -               8          -       -
6   accept  -            -         -        -               -          -       -
7   accept  -            -         -        -               -          -       -
";
/// Without the rule that had the number 1.
const RULES_AFTER: &str = "\
NO  ACTION  HOST         PROTOCOL  PORT(S)  SPECIAL TARGET  ICMP TYPE  EXPIRE  COMMENT
0   accept  10.0.0.1/32  tcp       443      -               -          -       -
1   accept  10.1.2.3/32  tcp       22       -               -          -       -
2   accept  example.org  -         -        -               -          -       -
3   accept  -            -         -        dns             -          -       -
4   accept  -            icmp      -        -               8          -       -
5   accept  -            -         -        -               -          -       -
6   accept  -            -         -        -               -          -       -
";

/// In the older program's list every rule stands behind the one that accepts everything.
const BEFORE_WHAT_VOIDS_IT: &str = "A rule goes before the first that would make it void, so that it \
     means something; the numbers of rules follow from that.";

const DIFFERENCES: [Difference; 11] = [
    (
        &["list", "list after start"],
        Here::WithoutLastLine,
        "How many qubes there are outside the scope is not the agent's business.",
    ),
    (
        &["exec exit code"],
        Here::CodeBelow,
        "A socket service has no exit code, so it is told as the older client itself shows it. The two \
         streams of a command come apart, so that what is written to both at once may change places.",
    ),
    (
        &[
            "exec no cmd",
            "exec bad json",
            "exec empty",
            "read missing",
            "firewall add dstports=22",
            "firewall add proto=bogus",
            "firewall add dsthost=10.0.0.0/99",
            "firewall add nonsense=1",
            "firewall add dsthost=a;b",
            "firewall add reject",
            "firewall remove 99",
            "firewall remove -1",
            "tcp add work vault 22",
            "tcp add @anyvm dev 22",
            "tcp add work dev 0",
            "tcp add work dev 70000",
            "tcp frob work dev 22",
        ],
        Here::Error,
        "A socket service has neither an exit code nor a second stream: a failure is one line that \
         says what is wrong, instead of a traceback or of nothing.",
    ),
    (
        &["read quote"],
        Here::Error,
        "An apostrophe is no reason to refuse a path; this file does not exist.",
    ),
    (&["write unwritable"], Here::Error, "A write that failed is told as failed."),
    (
        &["exec unicode"],
        Here::Text("\u{fffd}\u{fffd} ü\n"),
        "Commands run in bash, whose printf knows \\x; the bytes arrive as they are.",
    ),
    (
        &["read"],
        Here::Text("hello"),
        "A file holds the bytes that were written, without a newline that nobody wrote.",
    ),
    (
        &["size of it"],
        Here::Text("4\n"),
        "A file holds the bytes that were written, with every newline.",
    ),
    (&["firewall list"], Here::Table(RULES), BEFORE_WHAT_VOIDS_IT),
    (&["firewall list after"], Here::Table(RULES_AFTER), BEFORE_WHAT_VOIDS_IT),
    (
        &["network info running"],
        Here::Headings,
        "What the tools of a qube print is that qube's; headings and order are the same.",
    ),
];

/// Of two calls with the same note the second differs.
const SECOND: [Difference; 1] = [(
    &["tcp remove work dev 22"],
    Here::Text("Rule not found\n"),
    "The last rule is removed, which the older program only says.",
)];

fn recorded() -> Vec<Recorded> {
    serde_json::from_str(include_str!("recorded_calls.json")).unwrap()
}

fn difference(note: &str, is_second: bool) -> Option<&'static Difference> {
    let second = SECOND.iter().filter(|_| is_second);
    second.chain(&DIFFERENCES).find(|(notes, ..)| notes.contains(&note))
}

/// Addresses, labels and groups are those of the host.
fn without_host(text: &str) -> String {
    let word = |word: &str| {
        let is_address = word.split('.').count() == 4 && word.starts_with("10.13");
        let is_id = ["uid=", "gid=", "groups="].iter().any(|start| word.starts_with(start));
        let is_label = ["blue", "green", "orange", "purple", "yellow"].contains(&word);
        if is_address || is_id || is_label { "…".to_owned() } else { word.to_owned() }
    };
    let field = |line: &str, separator: char| {
        let separated = separator.to_string();
        line.split(separator).map(word).collect::<Vec<_>>().join(&separated)
    };
    let lines = text.split('\n').map(|line| field(&field(line, '|'), ' '));
    lines.collect::<Vec<_>>().join("\n")
}

async fn call(machine: &Machine, recorded: &Recorded) -> Told {
    let input = match &recorded.payload {
        None => String::new(),
        Some(payload) => match payload.get("raw").and_then(Value::as_str) {
            Some(raw) => raw.to_owned(),
            None => payload.to_string(),
        },
    };
    let child = match recorded.note.as_str() {
        "foreign caller" => machine.qrexec_from("work", "dom0", &recorded.service),
        _ => machine.qrexec("dom0", &recorded.service),
    };
    Machine::finish(child, input.as_bytes()).await
}

/// What would be the answer, of which the network's is told by its beginning and its headings.
fn matches(recorded: &Recorded, told: &Told, here: Option<Here>) -> bool {
    let same = |stdout: &str| without_host(&told.stdout) == without_host(stdout);
    let Some(here) = here else {
        return same(&recorded.stdout)
            && (told.code, &told.stderr) == (recorded.exit_code, &recorded.stderr);
    };
    let text = match here {
        Here::Text(text) | Here::Table(text) => told.stdout == text,
        Here::Error => told.stdout.starts_with("ERROR: ") && told.stdout.lines().count() == 1,
        Here::CodeBelow => {
            let sorted = |text: &str| {
                let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let code = format!("\nEXIT CODE: {}", recorded.exit_code);
            let above = told.stdout.strip_suffix(&code);
            above.is_some_and(|above| sorted(above) == sorted(&recorded.stdout))
        }
        Here::WithoutLastLine => {
            let whole = recorded.stdout.trim_end_matches('\n');
            whole.rsplit_once('\n').is_some_and(|(lines, _)| same(&format!("{lines}\n")))
        }
        Here::Headings => outline(&told.stdout) == outline(&recorded.stdout),
    };
    text && told.code == 0 && told.stderr.is_empty()
}

/// The lines before the state in the qube, and all headings.
fn outline(page: &str) -> Vec<String> {
    let (properties, state) = page.split_once("=== In-VM").unwrap_or((page, ""));
    let headings = state.lines().filter(|line| line.starts_with("---"));
    without_host(properties).lines().chain(headings).map(str::to_owned).collect()
}

#[test]
fn every_recorded_call_is_answered_as_it_was_or_differs_for_a_reason() {
    on_host(async |machine| {
        machine.host.set_scope("@agent salt-bridge\nwork\ndev\ntest\n").unwrap();
        let (mut seen, mut wrong) = (Vec::new(), Vec::new());
        for recorded in recorded() {
            let is_second = seen.contains(&recorded.note);
            let here = difference(&recorded.note, is_second).map(|(_, here, _)| *here);
            let told = call(machine, &recorded).await;
            if !matches(&recorded, &told, here) {
                wrong.push(format!("{recorded:#?}\nhere {here:?}: {told:#?}"));
            }
            seen.push(recorded.note);
        }
        assert!(wrong.is_empty(), "{} differ: {}", wrong.len(), wrong.join("\n"));
        assert_eq!(seen.len(), 60, "all of them were made");
    });
}

#[test]
fn a_difference_is_one_of_a_recorded_call() {
    let notes: Vec<String> = recorded().into_iter().map(|recorded| recorded.note).collect();
    for (differing, ..) in DIFFERENCES.iter().chain(&SECOND) {
        for note in *differing {
            assert!(notes.iter().any(|known| known == note), "{note} was not recorded");
        }
    }
}

fn document() -> String {
    let rows = DIFFERENCES.iter().chain(&SECOND).map(|(notes, here, why)| {
        let here = match here {
            Here::Text(text) => format!("`{}`", text.escape_debug()),
            Here::Table(_) => "the same rules in another order".to_owned(),
            Here::Error => "one line `ERROR: …`".to_owned(),
            Here::CodeBelow => "the same text, and `EXIT CODE: N` below it".to_owned(),
            Here::WithoutLastLine => "without the line that counts hidden qubes".to_owned(),
            Here::Headings => "the same properties and headings".to_owned(),
        };
        format!("| {} | {here} | {why} |\n", notes.join(", "))
    });
    let rows: String = rows.collect();
    format!(
        "# Answers to the older program's client\n\n\
         Made from `tests/end_to_end/recorded_calls.rs`, which makes all {} calls again that were \
         recorded of the older program and holds every answer against the recorded one.\n\
         What is not in this table is the same to the byte, but for addresses, labels and \
         groups of the host.\n\n| recorded call | here | why |\n|---|---|---|\n{rows}",
        recorded().len()
    )
}

#[test]
#[expect(clippy::disallowed_methods, reason = "refreshing a golden file is asked for so")]
fn the_document_lists_every_difference() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/older-program.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(path, document()).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == document(), "docs/older-program.md is stale; UPDATE_GOLDEN=1 renews it");
}
