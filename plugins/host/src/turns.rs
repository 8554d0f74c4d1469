//! The turns of a prompt, as a conditioner pushes them.

use super::describe::text;
use motrain_abi as abi;
use motrain_core::Message;
use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const MOST_TURNS: usize = 10_000;
/// Bytes of a turn.
const MOST_TEXT: usize = 16 << 20;
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// The call whose turns this thread takes.
struct Open {
    ticket: usize,
    turns: Result<Vec<Message>, String>,
}

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}
static TICKETS: AtomicUsize = AtomicUsize::new(1);
/// A turn was pushed outside of its call.
static STRAY: AtomicBool = AtomicBool::new(false);

/// Takes turns until it is ended. What a plugin gets as context is a ticket, not a pointer: one that was kept, or is used by another
/// thread, is noticed and leads nowhere.
pub struct Turns {
    ticket: usize,
}

impl Turns {
    pub fn begin() -> Self {
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        OPEN.set(Some(Open { ticket, turns: Ok(Vec::new()) }));
        Self { ticket }
    }

    pub fn sink(&self) -> abi::MessageSink {
        abi::MessageSink {
            struct_size: size_of::<abi::MessageSink>(),
            context: std::ptr::without_provenance_mut::<c_void>(self.ticket),
            push: Some(push),
        }
    }

    pub fn end(self) -> Result<Vec<Message>, String> {
        let turns = OPEN.take().map_or(Ok(Vec::new()), |open| open.turns);
        if STRAY.swap(false, Ordering::Relaxed) {
            return Err("a turn was pushed with another call's sink or by another thread; push within the call, with its own sink".into());
        }
        turns
    }
}

unsafe extern "C" fn push(context: *mut c_void, role: abi::Str, content: abi::Str) {
    OPEN.with(|open| {
        match open.try_borrow_mut().ok().as_mut().and_then(|o| o.as_mut()).filter(|o| o.ticket == context.addr()) {
            // SAFETY: the plugin lends both texts for the call.
            Some(open) => unsafe { open.push(role, content) },
            None => STRAY.store(true, Ordering::Relaxed),
        }
    });
}

impl Open {
    /// # Safety
    /// Both texts are lent.
    unsafe fn push(&mut self, role: abi::Str, content: abi::Str) {
        let Ok(turns) = &mut self.turns else { return };
        // SAFETY: promised by the caller.
        let turn = unsafe {
            text(role, "a role", MOST_TEXT)
                .and_then(|role| Ok(Message { role, content: text(content, "the text of a turn", MOST_TEXT)? }))
        };
        match turn {
            Ok(turn) if !ROLES.contains(&turn.role.as_str()) => {
                self.turns = Err(format!("a turn has the role {:?}; it can be {}", turn.role, ROLES.join(", ")));
            }
            Ok(_) if turns.len() == MOST_TURNS => self.turns = Err(format!("pushed more than {MOST_TURNS} turns")),
            Ok(turn) => turns.push(turn),
            Err(what) => self.turns = Err(what),
        }
    }
}
