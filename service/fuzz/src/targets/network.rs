//! A network and an address, with a zero byte between them.

use std::net::IpAddr;

use daisi_ws_domain::{client_address::ClientShare, network::Network};

use crate::input::{split, text};

/// Family and bits, the first of which come first.
fn bits(address: IpAddr) -> (bool, u128) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (true, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (false, v6.to_bits()),
    }
}

pub(super) fn check(input: &[u8]) {
    let [network, address] = split(input).map(text);
    let Ok(parsed) = network.parse::<Network>() else { return };
    assert_eq!(parsed.to_string().parse::<Network>().as_ref(), Ok(&parsed), "it is written otherwise");
    let (first, length) = network.split_once('/').unwrap_or((&network, ""));
    let Ok(first) = first.parse::<IpAddr>() else { crate::fail("a network without an address") };
    assert!(parsed.contains(first), "it has not its own first address");
    let Ok(address) = address.parse::<IpAddr>() else { return };
    let ((is_v4, start), (of_v4, place)) = (bits(first), bits(address));
    let length: u32 = length.parse().unwrap_or(if is_v4 { 32 } else { 128 });
    let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    assert_eq!(parsed.contains(address), is_v4 == of_v4 && (start ^ place) & mask == 0, "{network} and {address}");
    // Who shares with whom is by the same bits.
    let share = u128::MAX << if is_v4 { 96 } else { 64 };
    let shares = is_v4 == of_v4 && (start ^ place) & share == 0;
    assert_eq!(ClientShare::of(first) == ClientShare::of(address), shares);
}
