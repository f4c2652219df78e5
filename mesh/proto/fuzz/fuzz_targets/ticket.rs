//! Reads texts as tickets: nothing may panic, and a ticket that is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_ofp::ticket::Ticket;

fuzz_target!(|text: &str| {
    if let Ok(ticket) = text.parse::<Ticket>() {
        let written = ticket.expose();
        assert_eq!(written.as_str(), text.trim().to_lowercase());
    }
});
