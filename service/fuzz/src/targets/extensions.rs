//! A mode, then values of `Sec-WebSocket-Extensions`, a line each.

use daisi_ws_websocket::{
    Agreement,
    deflate::{MAX_WINDOW_BITS, MIN_WINDOW_BITS},
    negotiate::CompressionMode,
};

use crate::input::{Input, text};

pub(super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let alone = input.byte() % 2 == 1;
    let mode = if alone { CompressionMode::NoContextTakeover } else { CompressionMode::ContextTakeover };
    let offers = text(input.rest());
    assert_eq!(Agreement::reach(CompressionMode::Disabled, offers.lines()), None);
    let reached = Agreement::reach(mode, offers.lines());
    // Lines of a header are one list (RFC 9110, section 5.3), unless a quote is open at the end of one.
    if !offers.contains('"') {
        let list = offers.lines().collect::<Vec<_>>().join(",");
        assert_eq!(reached, Agreement::reach(mode, [list.as_str()]), "lines and a list are not the same");
    }
    let Some(agreement) = reached else {
        assert!(!offers.lines().any(|line| line == "permessage-deflate"), "the plainest offer is declined");
        return;
    };
    assert!((MIN_WINDOW_BITS..=MAX_WINDOW_BITS).contains(&agreement.server_window_bits));
    assert!(offers.contains("permessage-deflate"), "nobody offered it");
    if alone {
        assert!(agreement.server_no_context_takeover && agreement.client_no_context_takeover && agreement.contexts() == 0);
    }
    // The answer, offered, is what was agreed on.
    let header = agreement.header();
    assert!(header.is_ascii() && header.len() <= 128, "{header}");
    assert_eq!(Agreement::reach(CompressionMode::ContextTakeover, [header.as_str()]), Some(agreement), "{header}");
}
