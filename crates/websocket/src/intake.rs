//! What one client may have its socket take in: messages, other frames, and bytes, each at a rate with a burst on top.
//!
//! Every frame costs time, also one that says nothing, and so does every visit to the system for a byte. So everything is
//! charged, and nothing is free but the pong that was asked for.

use std::time::Instant;

use daisi_ws_domain::rate::{Debt, Pace};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::error::ProtocolError;

/// Frames beside messages (pings, pongs, continuations), for each message that is allowed: clients and proxies ping every few
/// seconds, and a long message may come in parts.
const FRAMES_A_MESSAGE: u32 = 5;
/// A continuation of this size pays for itself, by its bytes.
const SUBSTANTIAL: u64 = 1024;
/// What a read counts for at the least, in bytes: what the system takes for it.
const MIN_READ: usize = 256;
/// What a compressed byte counts for, beside those that it becomes: so much longer than a plain one it may take.
const COMPRESSED: usize = 4;
/// The burst of bytes, in seconds of the rate.
const BURST_SECONDS: u32 = 4;
/// The burst of bytes has room for so many messages of the greatest length, whatever the rate.
const BURST_MESSAGES: usize = 2;

/// The rates of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Messages a second, text or binary.
    pub messages: u32,
    /// Messages that may come at once.
    pub message_burst: u32,
    /// Bytes a second in the long run, as read and as inflated.
    pub bytes: u32,
}

/// What is left of a client's allowance. Every socket has one, most of them without ever needing it: what can be worked out is
/// not kept.
#[derive(Debug)]
pub(super) struct Intake {
    rates: Rates,
    byte_burst: u32,
    messages: Debt,
    frames: Debt,
    bytes: Debt,
    /// When time was last taken off the debts.
    at: Instant,
    /// Pings that were sent and not answered.
    asked: u8,
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Intake {
    /// All of it, for a client whose messages may have `limit` bytes.
    pub(super) fn new(rates: Rates, limit: usize, now: Instant) -> Self {
        // As bytes of the wire and those that they become, all compressed.
        let longest = limit.saturating_mul(BURST_MESSAGES * (COMPRESSED + 1));
        let byte_burst = rates.bytes.saturating_mul(BURST_SECONDS).max(narrow(longest));
        let nothing = Debt::default();
        Self { rates, byte_burst, messages: nothing, frames: nothing, bytes: nothing, at: now, asked: 0 }
    }

    /// A ping goes out: its answer costs nothing.
    pub(super) fn asked(&mut self) {
        self.asked = self.asked.saturating_add(1);
    }

    /// So many bytes were read at once.
    pub(super) fn read(&mut self, bytes: usize, now: Instant) -> Result<(), ProtocolError> {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        for debt in [&mut self.messages, &mut self.frames, &mut self.bytes] {
            debt.wait(passed);
        }
        self.charge_bytes(narrow(bytes.max(MIN_READ)))
    }

    /// A frame has come, whole.
    pub(super) fn frame(&mut self, opcode: OpCode, bytes: u64) -> Result<(), ProtocolError> {
        let Rates { messages, message_burst, .. } = self.rates;
        match opcode {
            OpCode::Data(Data::Text | Data::Binary) => charge(&mut self.messages, 1, Pace::new(messages, message_burst)),
            OpCode::Data(_) if bytes >= SUBSTANTIAL => Ok(()),
            OpCode::Control(Control::Pong) if self.asked > 0 => {
                self.asked -= 1;
                Ok(())
            }
            // Anyone who leaves is not told that he said it too fast.
            OpCode::Control(Control::Close) => Ok(()),
            OpCode::Data(_) | OpCode::Control(_) => {
                let [rate, burst] = [messages, message_burst].map(|of| of.saturating_mul(FRAMES_A_MESSAGE));
                charge(&mut self.frames, 1, Pace::new(rate, burst))
            }
        }
    }

    /// So many compressed bytes, which were paid for as bytes, have become so many.
    pub(super) fn inflated(&mut self, from: usize, to: usize) -> Result<(), ProtocolError> {
        self.charge_bytes(narrow(from.saturating_mul(COMPRESSED - 1).saturating_add(to)))
    }

    fn charge_bytes(&mut self, bytes: u32) -> Result<(), ProtocolError> {
        charge(&mut self.bytes, bytes, Pace::new(self.rates.bytes, self.byte_burst))
    }
}

fn charge(debt: &mut Debt, cost: u32, pace: Pace) -> Result<(), ProtocolError> {
    if debt.spend(cost, pace) { Ok(()) } else { Err(ProtocolError::TooMuch) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATES: Rates = Rates { messages: 20, message_burst: 40, bytes: 262_144 };
    const PONG: OpCode = OpCode::Control(Control::Pong);

    fn intake() -> (Intake, Instant) {
        let now = tokio::time::Instant::now().into_std();
        (Intake::new(RATES, 65_536, now), now)
    }

    #[test]
    fn an_idle_socket_keeps_one_line_of_memory_for_it() {
        assert!(size_of::<Intake>() <= 64, "{}", size_of::<Intake>());
    }

    /// How many of something pass before it is too much.
    fn passing(mut one: impl FnMut() -> Result<(), ProtocolError>) -> usize {
        (0..100_000).take_while(|_| one().is_ok()).count()
    }

    #[test]
    fn every_kind_of_frame_is_charged() {
        let text = OpCode::Data(Data::Text);
        for (opcode, burst, a_second) in [
            (text, 40, 20),
            (OpCode::Data(Data::Binary), 40, 20),
            (OpCode::Data(Data::Continue), 200, 100),
            (OpCode::Control(Control::Ping), 200, 100),
            (PONG, 200, 100),
        ] {
            let (mut intake, now) = intake();
            assert_eq!(passing(|| intake.frame(opcode, 0)), burst, "{opcode:?}");
            intake.read(1, now + Duration::from_secs(1)).unwrap();
            assert_eq!(passing(|| intake.frame(opcode, 0)), a_second, "{opcode:?}");
        }
    }

    #[test]
    fn the_pong_that_was_asked_for_is_free_and_no_other() {
        let (mut intake, _) = intake();
        assert_eq!(passing(|| intake.frame(PONG, 0)), 200);
        intake.asked();
        assert_eq!(passing(|| intake.frame(PONG, 0)), 1);
    }

    #[test]
    fn bytes_are_charged_as_read_and_as_inflated_and_a_read_of_one_byte_is_not_free() {
        let (mut intake, now) = intake();
        assert_eq!(passing(|| intake.read(16_384, now)), 64);
        let second = now + Duration::from_secs(1);
        assert_eq!(passing(|| intake.read(1, second)), 1024);
        let third = second + Duration::from_secs(1);
        intake.read(1, third).unwrap();
        assert_eq!(passing(|| intake.inflated(1_000, 60_000)), 4);
    }

    #[test]
    fn the_longest_messages_pass_whatever_the_rate_of_bytes() {
        let now = tokio::time::Instant::now().into_std();
        let mut intake = Intake::new(Rates { bytes: 1, ..RATES }, 1 << 20, now);
        intake.read(1 << 20, now).unwrap();
        intake.inflated(1 << 20, 1 << 20).unwrap();
    }
}
