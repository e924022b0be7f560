//! Counts connections, so that strangers cannot take the places of those who have shown a token.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use contract::limits::{HTTP_CONNECTIONS, HTTP_NEWCOMERS};
use tokio_util::sync::CancellationToken;

/// Who is connected.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    next: u64,
    newcomers: VecDeque<(u64, CancellationToken)>,
    known: usize,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    guests: Arc<Guests>,
    number: u64,
    cut: CancellationToken,
    known: Mutex<bool>,
}

impl Guests {
    /// Gives a new connection a place. Where there is none, the newcomer that has been here for
    /// longest is cut off.
    pub(crate) fn welcome(self: &Arc<Self>) -> Guest {
        let mut book = self.book();
        if book.newcomers.len() >= HTTP_NEWCOMERS
            && let Some((_, oldest)) = book.newcomers.pop_front()
        {
            oldest.cancel();
        }
        let (number, cut) = (book.next, CancellationToken::new());
        book.next = number.wrapping_add(1);
        book.newcomers.push_back((number, cut.clone()));
        Guest { guests: Arc::clone(self), number, cut, known: Mutex::new(false) }
    }

    /// Held only between two awaits.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Cancelled when the place is needed for another.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Notes that a good token was shown. False where there are too many already who have.
    pub(crate) fn make_known(&self) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *known {
            return true;
        }
        let mut book = self.guests.book();
        if book.known >= HTTP_CONNECTIONS {
            return false;
        }
        book.known = book.known.saturating_add(1);
        book.newcomers.retain(|(number, _)| *number != self.number);
        *known = true;
        true
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut book = self.guests.book();
        if known {
            book.known = book.known.saturating_sub(1);
        } else {
            book.newcomers.retain(|(number, _)| *number != self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_push_out_one_another_and_nobody_who_is_known() {
        let guests = Arc::new(Guests::default());
        let friend = guests.welcome();
        assert!(friend.make_known() && friend.make_known());
        let strangers: Vec<Guest> = (0..=HTTP_NEWCOMERS).map(|_| guests.welcome()).collect();
        let cut: Vec<bool> = strangers.iter().map(|guest| guest.cut().is_cancelled()).collect();
        assert!(cut[0] && !cut[1..].contains(&true) && !friend.cut().is_cancelled());
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_has_gone() {
        let guests = Arc::new(Guests::default());
        let known: Vec<Guest> = (0..HTTP_CONNECTIONS)
            .map(|_| guests.welcome())
            .inspect(|guest| assert!(guest.make_known()))
            .collect();
        let late = guests.welcome();
        assert!(!late.make_known());
        drop(known);
        assert!(late.make_known());
        drop(late);
        let book = guests.book();
        assert_eq!((book.known, book.newcomers.len()), (0, 0));
    }
}
