//! The one thread that writes log lines: anyone who logs puts a line into a bounded queue and goes on, whatever becomes of
//! standard error.
//!
//! A reader that has stopped (a full pipe), one that is gone (a closed pipe) or a full disk cost lines, which are counted and
//! told; they never cost a thread its time.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd as _,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::{
    audit,
    line::Format,
    queue::{Class, Dropped, Queue},
    sampling::Sampler,
};

/// The most that is written at once, and that is in flight beside the queue.
const CHUNK: usize = 64 * 1024;
/// How often the thread looks for counts that are due.
const TURN: Duration = Duration::from_millis(500);
/// The pause after a write that failed: a closed pipe fails at once and for ever, a full disk until somebody makes room.
const RETRY: Duration = Duration::from_millis(200);
/// How often it is told that lines were dropped, where a slow reader never lets the queue run empty.
const NOTICE_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// Lines have been taken out of the queue and are not written yet.
    writing: bool,
    /// The last write failed.
    failing: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A line was put in.
    filled: Condvar,
    /// Everything is written, or can't be.
    settled: Condvar,
    dropped: AtomicU64,
    audit_dropped: AtomicU64,
    sampler: Arc<Sampler>,
    format: Format,
}

impl Shared {
    /// Held for moments only: nobody writes, formats or waits for another thread under it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes lines and never blocks. Clones share one queue and one thread.
#[derive(Debug, Clone)]
pub(super) struct LineWriter(Arc<Shared>);

impl LineWriter {
    /// Starts the thread that writes to `out`. It lives as long as the process: lines may come until the last moment.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(out: impl Write + Send + 'static, sampler: Arc<Sampler>, format: Format) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            settled: Condvar::new(),
            dropped: AtomicU64::new(0),
            audit_dropped: AtomicU64::new(0),
            sampler,
            format,
        });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || run(&theirs, out))?;
        Ok(Self(shared))
    }

    /// Puts lines at the end of the queue, as one.
    pub(super) fn put(&self, class: Class, text: &[u8]) {
        let dropped = self.0.lock().queue.push(class, text);
        self.0.dropped.fetch_add(dropped.ordinary, Ordering::Relaxed);
        self.0.audit_dropped.fetch_add(dropped.audit, Ordering::Relaxed);
        self.0.filled.notify_one();
    }

    /// Waits until everything is written, for no longer than `patience`, and not at all where writing fails. Counts that are not
    /// due yet are written too.
    pub(super) fn flush(&self, patience: Duration) {
        self.put_summaries(None);
        let state = self.0.lock();
        let waits =
            |state: &mut State| !state.failing && (state.writing || !state.queue.is_empty() || state.queue.untold().any());
        drop(self.0.settled.wait_timeout_while(state, patience, waits));
    }

    /// Lines that were dropped so far, ordinary ones and audit lines.
    pub(super) fn dropped(&self) -> (u64, u64) {
        (self.0.dropped.load(Ordering::Relaxed), self.0.audit_dropped.load(Ordering::Relaxed))
    }

    pub(super) fn sampler(&self) -> &Arc<Sampler> {
        &self.0.sampler
    }

    fn put_summaries(&self, now: Option<Instant>) {
        for summary in self.0.sampler.due(now) {
            let class = if summary.is_audit() { Class::Audit } else { Class::Ordinary };
            self.put(class, summary.line(self.0.format).as_bytes());
        }
    }
}

/// Standard error without its lock, which a write that blocks would hold.
pub(super) fn standard_error() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(own) => Box::new(File::from(own)),
        Err(_) => Box::new(io::stderr()),
    }
}

fn run(shared: &Arc<Shared>, mut out: impl Write) {
    let this = LineWriter(Arc::clone(shared));
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut told = None;
    loop {
        this.put_summaries(Some(Instant::now()));
        if next_chunk(shared, &mut chunk, &mut told) {
            write_all(shared, &mut out, &chunk);
            chunk.clear();
            chunk.shrink_to(2 * CHUNK);
            let mut state = shared.lock();
            state.writing = false;
            if state.queue.is_empty() && !state.queue.untold().any() {
                shared.settled.notify_all();
            }
        }
    }
}

/// Waits for a turn at most; takes what there is, and says what was dropped behind it.
fn next_chunk(shared: &Shared, chunk: &mut Vec<u8>, told: &mut Option<Instant>) -> bool {
    let state = shared.lock();
    let idle = |state: &mut State| state.queue.is_empty() && !state.queue.untold().any();
    let waited = shared.filled.wait_timeout_while(state, TURN, idle);
    let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    state.queue.take(chunk, CHUNK);
    let overdue = told.is_none_or(|told: Instant| told.elapsed() >= NOTICE_PAUSE);
    let dropped = if state.queue.is_empty() || overdue { state.queue.tell_dropped() } else { Dropped::default() };
    state.writing = !chunk.is_empty() || dropped.any();
    drop(state);
    if dropped.any() {
        *told = Some(Instant::now());
        chunk.extend_from_slice(notice(dropped, shared.format).as_bytes());
    }
    !chunk.is_empty()
}

fn notice(dropped: Dropped, format: Format) -> String {
    let fields = [("log.dropped", dropped.ordinary.to_string()), ("log.dropped_audit", dropped.audit.to_string())];
    format.line(Level::WARN, module_path!(), "log lines were dropped: they could not be written in time", &fields)
}

/// Writes everything, however long the reader takes. What fails is tried again from where it broke off, so no line is torn that a
/// reader is there for.
fn write_all(shared: &Shared, out: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(written) if written > 0 => {
                bytes = bytes.get(written..).unwrap_or_default();
                shared.lock().failing = false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else made it non-blocking, and it is full: no failure, only to be waited for.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(RETRY / 10),
            Ok(_) | Err(_) => {
                shared.lock().failing = true;
                shared.settled.notify_all();
                thread::park_timeout(RETRY);
            }
        }
    }
}

/// Puts what is written to it into the queue; the formatter writes a line at once.
#[derive(Debug)]
pub(super) struct Put<'a> {
    writer: &'a LineWriter,
    class: Class,
}

impl Write for Put<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.put(self.class, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Put<'a>;

    fn make_writer(&'a self) -> Put<'a> {
        Put { writer: self, class: Class::Ordinary }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Put<'a> {
        let class = if metadata.target() == audit::TARGET { Class::Audit } else { Class::Ordinary };
        Put { writer: self, class }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, PipeReader, Read as _},
        sync::mpsc,
    };

    use super::{
        super::queue::{MAX_BYTES, MAX_LINES},
        *,
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    fn on_pipe() -> (LineWriter, PipeReader) {
        let (reader, out) = io::pipe().unwrap();
        (LineWriter::start(out, Arc::default(), Format::Json).unwrap(), reader)
    }

    #[test]
    fn lines_come_in_order_and_a_flush_waits_for_them() {
        let (writer, reader) = on_pipe();
        for n in 0..100 {
            writer.put(Class::Ordinary, format!("{n}\n").as_bytes());
        }
        writer.flush(PATIENCE);
        let lines: Vec<String> = BufReader::new(reader).lines().take(100).map(Result::unwrap).collect();
        assert_eq!(lines, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_has_stopped_holds_nobody_up_and_is_told_once_of_each_line_that_it_missed() {
        let (writer, reader) = on_pipe();
        let line = [b'x'; 512];
        let started = Instant::now();
        let many = 4 * MAX_LINES;
        for _ in 0..many {
            writer.put(Class::Ordinary, &[&line[..], b"\n"].concat());
        }
        writer.flush(Duration::from_millis(50));
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        let (dropped, audit) = writer.dropped();
        // The pipe has 64 KiB and the chunk in flight as many.
        let kept = MAX_LINES + (64 * 1024 + 2 * CHUNK) / line.len();
        assert!(dropped as usize >= many - kept && audit == 0 && many * line.len() > MAX_BYTES, "{dropped}");
        // It reads again. Where the thread began late, its first chunk already tells of some.
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let (mut told, mut notices) = (0, 0);
        while told < dropped {
            let notice = lines.find(|line| line.contains("log lines were dropped")).unwrap();
            let notice: serde_json::Value = serde_json::from_str(&notice).unwrap();
            assert_eq!(notice["log.dropped_audit"], 0);
            told += notice["log.dropped"].as_u64().unwrap();
            notices += 1;
        }
        assert!(told == dropped && notices <= 2, "{told} of {dropped} lines in {notices} notices");
        writer.put(Class::Ordinary, b"after\n");
        let until_then = lines.take_while(|line| line != "after");
        assert_eq!(until_then.filter(|line| line.contains("log.dropped")).count(), 0, "it is told once");
    }

    #[test]
    fn an_audit_line_outlives_a_storm_of_others() {
        let (writer, mut reader) = on_pipe();
        for _ in 0..2 * MAX_LINES {
            writer.put(Class::Ordinary, &[b'x'; 512]);
        }
        writer.put(Class::Audit, b"who did what\n");
        assert!(writer.dropped().0 > 0);
        let (found, told) = mpsc::channel();
        thread::spawn(move || {
            let (mut text, mut chunk) = (Vec::new(), [0; 65536]);
            while !text.windows(12).any(|part| part == b"who did what") {
                let read = reader.read(&mut chunk).unwrap();
                // Only the end may have part of it.
                text.drain(..text.len().saturating_sub(16));
                text.extend_from_slice(&chunk[..read]);
            }
            found.send(reader).unwrap();
        });
        assert!(told.recv_timeout(PATIENCE).is_ok(), "the audit line was dropped");
        assert_eq!(writer.dropped().1, 0);
    }

    /// Fails for a while, as a full disk does.
    struct Full {
        room_comes: mpsc::Receiver<()>,
        has_room: bool,
        disk: io::PipeWriter,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.has_room |= self.room_comes.try_recv().is_ok();
            if self.has_room { self.disk.write(bytes) } else { Err(io::Error::from(io::ErrorKind::StorageFull)) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_no_line_that_fits_the_queue() {
        let (reader, disk) = io::pipe().unwrap();
        let (make_room, room_comes) = mpsc::channel();
        let writer = LineWriter::start(Full { room_comes, has_room: false, disk }, Arc::default(), Format::Json).unwrap();
        writer.put(Class::Ordinary, b"one\n");
        let before = Instant::now();
        writer.flush(PATIENCE);
        assert!(before.elapsed() < PATIENCE / 2, "nobody waits for what fails");
        writer.put(Class::Ordinary, b"two\n");
        make_room.send(()).unwrap();
        let lines: Vec<String> = BufReader::new(reader).lines().take(2).map(Result::unwrap).collect();
        assert_eq!((lines, writer.dropped()), (vec!["one".to_owned(), "two".to_owned()], (0, 0)));
    }

    #[test]
    fn a_reader_that_is_gone_holds_nobody_up() {
        let (writer, reader) = on_pipe();
        drop(reader);
        let before = Instant::now();
        for _ in 0..2 * MAX_LINES {
            writer.put(Class::Ordinary, b"nobody reads this\n");
        }
        writer.flush(PATIENCE);
        assert!(before.elapsed() < PATIENCE, "{:?}", before.elapsed());
        assert!(writer.dropped().0 > 0);
    }

    #[test]
    fn a_flush_has_an_end() {
        let (writer, _reader) = on_pipe();
        for _ in 0..MAX_LINES {
            writer.put(Class::Ordinary, &[b'x'; 256]);
        }
        let before = Instant::now();
        writer.flush(Duration::from_millis(100));
        assert!(before.elapsed() >= Duration::from_millis(100) && before.elapsed() < PATIENCE);
    }
}
