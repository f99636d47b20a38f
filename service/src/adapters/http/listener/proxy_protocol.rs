//! The PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2): whom a proxy speaks for, before the first byte of HTTP.
//!
//! Only read from proxies that are trusted, who then have to send it: to guess would let anybody choose an address.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before its addresses.
const FIXED: usize = 16;
/// Longest header of version 1, its line's end included (section 2.1).
const MAX_LINE: usize = 107;
/// Most bytes of addresses and extensions of version 2: what HAProxy itself sends has some 200 with TLS.
const MAX_EXTENSIONS: usize = 2048;

/// Reads the header, and not a byte of what is behind it. None: the proxy speaks for itself, as a health check does, or for whom
/// it can't say.
///
/// Bounded in bytes, not in time: the caller bounds that.
///
/// # Errors
/// When there is none, or it is malformed or over the bounds.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE { read_binary(stream).await } else { read_line(stream, &start).await }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut fixed = [0; FIXED - SIGNATURE.len()];
    stream.read_exact(&mut fixed).await?;
    let [version_and_command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_EXTENSIONS {
        return Err(malformed("a header of the PROXY protocol is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match version_and_command {
        // LOCAL: the proxy asks for itself.
        0x20 => Ok(None),
        0x21 => source(family, &rest),
        _ => Err(malformed("a header of the PROXY protocol is of another version or command")),
    }
}

/// The source in the addresses of version 2.
fn source(family: u8, addresses: &[u8]) -> io::Result<Option<IpAddr>> {
    let short = || malformed("a header of the PROXY protocol has no room for its addresses");
    match family {
        // TCP over IPv4, and over IPv6: two addresses and two ports.
        0x11 if addresses.len() < 12 => Err(short()),
        0x21 if addresses.len() < 36 => Err(short()),
        0x11 => Ok(addresses.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into())),
        0x21 => Ok(addresses.first_chunk::<16>().map(|octets| IpAddr::from(Ipv6Addr::from(*octets)).to_canonical())),
        // Unspecified, a Unix socket, datagrams: no address that counts here.
        _ => Ok(None),
    }
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin), start: &[u8]) -> io::Result<Option<IpAddr>> {
    if !start.starts_with(b"PROXY ") {
        return Err(malformed("a trusted proxy sent no header of the PROXY protocol"));
    }
    let mut line = start.to_vec();
    // A byte at a time, some sixty: nothing behind the line may be read.
    while !line.ends_with(b"\r\n") {
        if line.len() >= MAX_LINE {
            return Err(malformed("a line of the PROXY protocol is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line).ok_or_else(|| malformed("a line of the PROXY protocol is malformed"))
}

fn parse_line(line: &[u8]) -> Option<Option<IpAddr>> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?.strip_prefix("PROXY ")?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let parts: Vec<&str> = text.split(' ').collect();
    let [family, source, destination, source_port, port] = parts.as_slice() else { return None };
    let addresses: (IpAddr, IpAddr) = match *family {
        "TCP4" => (source.parse::<Ipv4Addr>().ok()?.into(), destination.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => (source.parse::<Ipv6Addr>().ok()?.into(), destination.parse::<Ipv6Addr>().ok()?.into()),
        _ => return None,
    };
    let _: (u16, u16) = (source_port.parse().ok()?, port.parse().ok()?);
    Some(Some(addresses.0.to_canonical()))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// What is read of these bytes, and what is left behind them.
    async fn read_of(bytes: &[u8]) -> (io::Result<Option<IpAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        client.write_all(bytes).await.unwrap();
        drop(client);
        let (outcome, mut rest) = (read(&mut stream).await, Vec::new());
        let _ = stream.read_to_end(&mut rest).await;
        (outcome, rest)
    }

    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, addresses, b"GET /"].concat()
    }

    #[tokio::test]
    async fn the_source_is_read_and_nothing_behind_the_header() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 1, 2, 3, 4];
        let v6: Vec<u8> = [&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 20]].concat();
        let cases: [(Vec<u8>, Option<&str>); 9] = [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 8080\r\nGET /".to_vec(), Some("203.0.113.7")),
            (b"PROXY TCP6 2001:db8::1 fd00::1 4711 8080\r\nGET /".to_vec(), Some("2001:db8::1")),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\nGET /".to_vec(), None),
            (binary(0x21, 0x11, &v4), Some("203.0.113.7")),
            (binary(0x21, 0x11, &[&v4[..], &[4, 0, 1, 0]].concat()), Some("203.0.113.7")),
            (binary(0x21, 0x21, &v6), Some("2001:db8::1")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ];
        for (bytes, source) in cases {
            let (outcome, rest) = read_of(&bytes).await;
            assert_eq!(outcome.unwrap(), source.map(|text| text.parse().unwrap()), "{bytes:?}");
            assert_eq!(rest, b"GET /", "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_within_bounds() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat();
        let mut huge = binary(0x21, 0x11, &[0; 12]);
        huge[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: test\r\n\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 10.0.0.1 4711 80\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 99999\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0".to_vec(),
            b"PROXY TCP9 a b 1 2\r\n".to_vec(),
            long,
            huge,
            binary(0x31, 0x11, &[0; 12]),
            binary(0x21, 0x11, &[0; 8]),
            Vec::new(),
        ] {
            assert!(read_of(&bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}
