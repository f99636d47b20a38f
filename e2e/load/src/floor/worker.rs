//! A thread of the floor: its sockets, by subject, and the events for them.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use memchr::memmem;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::mpsc, task::JoinSet};

use super::{
    burst::Burst,
    socket::Socket,
    upgrade::{self, HEAD_END},
};

/// Longest head of a request.
const MAX_HEAD: usize = 16 * 1024;

/// What a thread is given to do.
pub(super) enum Work {
    /// Somebody has connected.
    Socket(std::net::TcpStream),
    /// Events to deliver.
    Events(Arc<Vec<Burst>>),
}

/// The sockets of a thread, by subject.
type Subjects = Rc<RefCell<HashMap<Box<str>, Vec<Rc<Socket>>>>>;

/// Works until nobody has work any more.
pub(super) async fn serve(mut work: mpsc::Receiver<Work>) {
    let (subjects, mut tasks) = (Subjects::default(), JoinSet::new());
    while let Some(work) = work.recv().await {
        match work {
            Work::Events(bursts) => deliver(&subjects, &bursts),
            Work::Socket(stream) => {
                let subjects = Rc::clone(&subjects);
                tasks.spawn_local(async move {
                    // A socket that ends, or never was one, is its client's business.
                    let _ = open(stream, &subjects).await;
                });
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}

fn deliver(subjects: &Subjects, bursts: &[Burst]) {
    let subjects = subjects.borrow();
    for Burst { subject, frames } in bursts {
        subjects.get(subject).into_iter().flatten().for_each(|socket| socket.send(frames));
    }
}

/// Answers the handshake and serves the socket to its end.
async fn open(stream: std::net::TcpStream, subjects: &Subjects) -> Option<()> {
    let mut stream = TcpStream::from_std(stream).ok()?;
    let mut bytes = Vec::with_capacity(1024);
    let end = loop {
        if let Some(at) = memmem::find(&bytes, HEAD_END) {
            break at + HEAD_END.len();
        }
        if bytes.len() > MAX_HEAD || stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let (subject, answer) = upgrade::accept(bytes.get(..end)?)?;
    let rest = bytes.split_off(end);
    drop(bytes);
    let (subject, socket): (Box<str>, _) = (subject.into(), Rc::new(Socket::new(stream)));
    // Before `ready` is sent, so that what is published after it arrives.
    subjects.borrow_mut().entry(subject.clone()).or_default().push(Rc::clone(&socket));
    socket.serve(&answer, rest).await;
    let mut subjects = subjects.borrow_mut();
    if let Some(sockets) = subjects.get_mut(&subject) {
        sockets.retain(|other| !Rc::ptr_eq(other, &socket));
        if sockets.is_empty() {
            subjects.remove(&subject);
        }
    }
    Some(())
}
