//! What an event of a load test carries, so that its receiver knows which one it is and when it was sent, without reading JSON.

use memchr::memmem;

/// What an event's id begins with; the number and the time follow, each of a fixed width, with a colon between them.
const MARK: &[u8] = b"\"load:";
const NUMBER_DIGITS: usize = 10;
const TIME_DIGITS: usize = 19;
/// The id is the first key of an event and is found within so many bytes of the frame's start, or it is not there.
const SEARCHED: usize = 160;

/// Which event, and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Its place among the events for the same sockets, from 0.
    pub(crate) number: u32,
    /// Time of sending, by [`crate::clock::nanos`].
    pub(crate) sent: u64,
}

/// The stamp in a frame's text; none if it has none.
pub(crate) fn find(text: &[u8]) -> Option<Stamp> {
    let start = memmem::find(text.get(..SEARCHED).unwrap_or(text), MARK)? + MARK.len();
    let number = text.get(start..start + NUMBER_DIGITS)?;
    let start = start + NUMBER_DIGITS + 1;
    let sent = text.get(start..start + TIME_DIGITS)?;
    Some(Stamp { number: u32::try_from(decimal(number)?).ok()?, sent: decimal(sent)? })
}

fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + u64::from(digit))
    })
}

/// A chat's event as a publisher writes it, of some 400 bytes plus `padding`.
pub(crate) fn event(stamp: Stamp, desk: &str, event_time: &str, padding: usize) -> String {
    let Stamp { number, sent } = stamp;
    format!(
        concat!(
            r#"{{"event_id":"load:{number:010}:{sent:019}","event_time":"{event_time}","company_id":"load","agent_id":"{desk}","#,
            r#""chat_id":"62811200345@s.whatsapp.net","row_data":{{"id":67890,"push_name":"sari","unread_count":3,"#,
            r#""last_message":{{"text":"Halo kak, pesanan #4471 sudah dikirim?{empty:padding$}"}},"#,
            r#""conversation_timestamp":1772439342118}}}}"#
        ),
        number = number,
        sent = sent,
        event_time = event_time,
        desk = desk,
        empty = "",
        padding = padding,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { number: 17, sent: 1_234_567_890_123 };

    #[test]
    fn the_stamp_of_an_event_is_found_in_the_frame_of_it() {
        let event = event(STAMP, "desk", "2026-03-02T08:15:42.131Z", 0);
        let frame = format!(r#"{{"type":"event","seq":18446744073709551615,"payload":{event}}}"#);
        assert_eq!(find(frame.as_bytes()), Some(STAMP));
    }

    #[test]
    fn an_event_is_json_of_the_size_asked_for() {
        let (plain, padded) = (event(STAMP, "d", "t", 0), event(STAMP, "d", "t", 1000));
        assert!(serde_json::from_str::<serde_json::Value>(&padded).unwrap()["row_data"]["id"] == 67890);
        assert!((300..420).contains(&plain.len()), "{}", plain.len());
        assert_eq!(padded.len(), plain.len() + 1000);
    }

    #[test]
    fn no_stamp_is_found_where_there_is_none() {
        for text in ["", "{}", r#"{"event_id":"load:"#, r#"{"event_id":"load:00000000x7:0000001234567890123""#] {
            assert_eq!(find(text.as_bytes()), None, "{text}");
        }
        let late = format!("{}{}", "x".repeat(SEARCHED), event(STAMP, "d", "t", 0));
        assert_eq!(find(late.as_bytes()), None);
    }
}
