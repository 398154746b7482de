//! The end of the process when a part of it panics.
//!
//! A panic in a part ends it where it happens. Unwinding would first drop what the part holds,
//! other parts would end because of that, and one of them be named in its place.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use super::abort::end;
use super::entry::Entry;

thread_local! {
    /// The part that this thread works for at the moment.
    static CURRENT: RefCell<Option<Arc<Entry>>> = const { RefCell::new(None) };
}

/// While it is there, the thread works for a part, or for none.
pub(super) struct Within {
    before: Option<Arc<Entry>>,
}

impl Within {
    pub(super) fn enter(entry: &Arc<Entry>) -> Self {
        let before = CURRENT.replace(Some(Arc::clone(entry)));
        Self { before }
    }

    /// The thread does something for which no part answers.
    pub(super) fn none() -> Self {
        let before = CURRENT.take();
        Self { before }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// Makes every later panic in a part of this process end it.
pub fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        // Taken: a panic while this one is logged must not come back here.
        let part = CURRENT.try_with(RefCell::take).ok().flatten();
        if let Some(part) = part.filter(|part| !part.is_stopping()) {
            let message = panic_message(panic.payload());
            end(&part.name, &format!("panicked: {message}"));
        }
    }));
}

/// Returns the text of a panic.
#[must_use]
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
