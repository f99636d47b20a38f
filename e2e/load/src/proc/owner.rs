//! Which process listens at an address of this machine: so servers that were there before can be measured too.

use std::{fs, net::SocketAddr};

/// The id of the process that listens at the port of `address`; none if there is none here, or it may not be looked at.
pub(crate) fn of(address: SocketAddr) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = tables.iter().find_map(|table| listener(table, address.port()))?;
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files.any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())).then_some(pid)
    })
}

/// The inode of the socket that listens (state 0A) at this port.
fn listener(table: &str, port: u16) -> Option<u64> {
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state) = (fields.get(1)?, fields.get(3)?);
        (local.ends_with(&port) && *state == "0A").then(|| fields.get(9)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    #[test]
    fn this_process_owns_what_it_listens_at() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(super::of(listener.local_addr().unwrap()), Some(std::process::id()));
    }

    #[test]
    fn nobody_owns_a_port_that_is_closed() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(super::of(address), None);
    }
}
