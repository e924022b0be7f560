//! How far a call is, on standard error while a person looks at it.

use std::io::{self, IsTerminal};

use tokio::sync::watch;

use super::{complain, table};

/// Back to the beginning of the line, and away with what is there.
const CLEAR: &str = "\r\x1b[K";
/// The cells of a bar.
const CELLS: usize = 24;

/// Does the work and shows its news on one line, with a bar where they begin with a percentage.
pub(super) async fn show_progress<T>(work: impl AsyncFnOnce(&watch::Sender<String>) -> T) -> T {
    let (news, mut heard) = watch::channel(String::new());
    let work = async move {
        let news = news;
        work(&news).await
    };
    let tell = async {
        let person = io::stderr().is_terminal();
        while heard.changed().await.is_ok() {
            if person {
                let line = render(&heard.borrow_and_update());
                complain(format!("{CLEAR}{line}").as_bytes());
            }
        }
        if person {
            complain(CLEAR.as_bytes());
        }
    };
    tokio::join!(work, tell).0
}

fn render(news: &str) -> String {
    let line = table::plain(news).replace('\n', " ");
    let percent = line.split_once('%').and_then(|(number, _)| number.parse::<usize>().ok());
    match percent.filter(|percent| *percent <= 100) {
        Some(percent) => {
            let full = percent * CELLS / 100;
            format!("[{}{}] {line}", "#".repeat(full), " ".repeat(CELLS - full))
        }
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_becomes_a_bar() {
        assert_eq!(render("50% of 4 MiB: x"), "[############            ] 50% of 4 MiB: x");
        assert_eq!(render("line\n3"), "line 3");
    }
}
