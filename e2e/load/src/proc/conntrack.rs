//! The table of connections that the kernel tracks, where it does: a connection stays there for two minutes after its end, and
//! one that finds no room is as good as lost.

use std::{fs, time::Duration};

use anyhow::{Result, bail, ensure};
use tokio::time::sleep;

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// Of the table, for others and for entries that are counted late.
const SPARED: u64 = 8;
const LOOK: Duration = Duration::from_secs(1);
/// As long as an ended connection stays, and half as long again; who still has no room then will not get it.
const PATIENCE: u32 = 180;

/// Waits until so many connections have room, for three minutes at most. Calls `wait` once if there is none now.
///
/// # Errors
/// When there is none then, or can never be.
pub(crate) async fn room_for(connections: u32, wait: impl FnOnce()) -> Result<()> {
    let mut wait = Some(wait);
    for _ in 0..PATIENCE {
        let (Some(count), Some(max)) = (number(COUNT), number(MAX)) else { return Ok(()) };
        ensure!(
            has_room(0, max, connections),
            "the kernel tracks {max} connections at most, too few for {connections} sockets: \
             raise net.netfilter.nf_conntrack_max, or measure fewer"
        );
        if has_room(count, max, connections) {
            return Ok(());
        }
        if let Some(wait) = wait.take() {
            wait();
        }
        sleep(LOOK).await;
    }
    bail!(
        "the kernel tracks so many connections that {connections} more find no room: \
         raise net.netfilter.nf_conntrack_max, or measure fewer"
    )
}

fn has_room(count: u64, max: u64, connections: u32) -> bool {
    count + u64::from(connections) <= max - max / SPARED
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_table_is_left_to_others() {
        assert!(has_room(0, 1000, 875));
        assert!(!has_room(1, 1000, 875));
        assert!(!has_room(2000, 1000, 0));
    }

    #[tokio::test]
    async fn who_has_room_does_not_wait() {
        room_for(0, || ()).await.unwrap();
    }

    #[tokio::test]
    async fn more_than_the_table_holds_is_an_error_at_once() {
        if number(MAX).is_some() {
            let error = room_for(u32::MAX, || panic!("it waits")).await.unwrap_err();
            assert!(error.to_string().contains("nf_conntrack_max"), "{error}");
        }
    }
}
