//! Three sizes of pieces, whether compression is on, then what a client sends.

use super::conversation::{End, HEADER, LIMIT, inflater, oracle, ours};

/// Longer than any frame within the limit: behind some bytes, it ends whatever frame they begin.
const PADDING: [u8; LIMIT + HEADER] = [0; LIMIT + HEADER];

pub(super) fn check(input: &[u8]) {
    let Some(([one, other, long, mode], bytes)) = input.split_first_chunk() else { return };
    let sizes = [usize::from(*one), usize::from(*other), 4 * usize::from(*long)];
    let heard = ours(bytes, &sizes, inflater(*mode));
    assert_eq!(heard, ours(bytes, &[1], inflater(*mode)), "how bytes are cut changes what is heard");
    if inflater(*mode).is_on() {
        return;
    }
    let so_far = oracle(bytes);
    assert_eq!(heard.0, so_far.0, "the oracle hears other messages");
    // A breach is found no later than by the oracle, which looks at whole frames.
    assert!(
        matches!((heard.1, so_far.1), (_, End::Open) | (End::Failed(_), End::Failed(_))) || heard.1 == so_far.1,
        "{:?}, and the oracle says {:?}",
        heard.1,
        so_far.1
    );
    let whole = [bytes, &PADDING].concat();
    let (heard, told) = (ours(&whole, &sizes, inflater(*mode)), oracle(&whole));
    assert_eq!(heard.0, told.0, "the oracle hears other messages");
    // Of a frame that is wrong in two ways, either may be named.
    let both_failed = matches!((heard.1, told.1), (End::Failed(_), End::Failed(_)));
    assert!(heard.1 == told.1 || both_failed, "{:?}, and the oracle says {:?}", heard.1, told.1);
}
