//! Subjects with wildcards: `*` is one token, `>` all that follow.

/// Does every subject that `narrow` matches match `wide` too?
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Is there a subject that both match?
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_subject_covers_a_narrower_one() {
        for (wide, narrow) in [(">", "wa.>"), ("wa.>", "wa.*.*.chats"), ("wa.*.>", "wa.a.b"), ("wa.a", "wa.a"), ("*", "wa")] {
            assert!(covers(wide, narrow) && overlap(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [("wa.acme.>", "wa.*.*.chats"), ("wa.*", "wa.>"), ("wa", "wa.>"), ("wa.>", "wa"), ("wax.>", "wa.>")]
        {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn subjects_overlap_where_one_can_match_both() {
        for (a, b) in [("wa.acme.>", "wa.*.*.chats"), ("*.acme.a1.*", "wa.*.*.agents"), (">", "wa")] {
            assert!(overlap(a, b) && overlap(b, a), "{a} {b}");
        }
        for (a, b) in [("orders.>", "wa.*.*.chats"), ("wa.*", "wa.*.*.chats"), ("wa.a.b.chats.x", "wa.*.*.chats")] {
            assert!(!overlap(a, b) && !overlap(b, a), "{a} {b}");
        }
    }
}
