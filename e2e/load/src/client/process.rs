//! A client process: reads orders from its standard input, has its workers carry them out, answers on its standard output.

use std::{
    io::{BufRead as _, Write as _},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    protocol::{Opening, Order, Published, Reply, Report, SetId},
    shared::Shared,
    worker::{Command, Handle, Worker},
};
use crate::{clock, samples::Samples};

/// Longest time for workers to carry out an order: as long as a run may wait for its sockets.
const ORDER_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at how many sockets are closed.
const LOOK: Duration = Duration::from_millis(2);
/// Between two times that sockets ask where they are: a server bounds how much a client may say.
const ASKING: Duration = Duration::from_millis(250);

/// Obeys until the standard input ends.
///
/// # Errors
/// When there are no threads or polls to be had, or the conductor can't be answered.
pub(crate) fn run(threads: usize) -> Result<()> {
    let process = Process::start(threads.max(1))?;
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    for line in input.lines() {
        let order = serde_json::from_str(&line?).context("an order that is none")?;
        let reply = process.carry_out(order).unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
        serde_json::to_writer(&mut output, &reply)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    process.end()
}

struct Process {
    shared: Arc<Shared>,
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Process {
    fn start(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut process = Self { shared, handles: Vec::new(), threads: Vec::new() };
        for _ in 0..threads {
            let (worker, handle) = Worker::new(Arc::clone(&process.shared))?;
            process.handles.push(handle);
            process.threads.push(thread::spawn(move || worker.run()));
        }
        Ok(process)
    }

    fn end(self) -> Result<()> {
        for Handle { commands, waker } in self.handles {
            drop(commands);
            waker.wake()?;
        }
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(())
    }

    fn carry_out(&self, order: Order) -> Result<Reply> {
        match order {
            Order::Open(opening) => {
                let done = self.ask(|nth, done| Command::Open(self.share(&opening, nth), done))?;
                self.all(&done)?;
            }
            Order::Expect { deliveries, timeout_ms } => {
                let (deliveries, last) = self.shared.wait_for(deliveries, Duration::from_millis(timeout_ms));
                return Ok(Reply::Received { deliveries, last });
            }
            Order::ExpectClosed { set, sockets, timeout_ms } => self.await_closed(set, sockets, timeout_ms)?,
            Order::Reset => self.tell(|| Command::Reset)?,
            Order::Report { set, published } => return Ok(Reply::Report(Box::new(self.report(set, published)?))),
            Order::Drop { set } => {
                let done = self.ask(|_, done| Command::Drop(set, done))?;
                self.all(&done)?;
            }
            Order::Pause { set, sockets } => self.tell(|| Command::Pause(set, sockets))?,
            Order::Unpause { set } => self.tell(|| Command::Unpause(set))?,
            Order::Locate { set, sequence, timeout_ms } => self.locate(set, sequence, timeout_ms)?,
        }
        Ok(Reply::Done { at: clock::nanos() })
    }

    fn tell(&self, command: impl Fn() -> Command) -> Result<()> {
        for handle in &self.handles {
            handle.commands.send(command()).context("a worker has ended")?;
            handle.waker.wake()?;
        }
        Ok(())
    }

    /// Sends each worker, the nth of them, a command that it answers.
    fn ask<T>(&self, command: impl Fn(usize, std::sync::mpsc::Sender<T>) -> Command) -> Result<Receiver<T>> {
        let (sender, answers) = channel();
        for (nth, handle) in self.handles.iter().enumerate() {
            handle.commands.send(command(nth, sender.clone())).context("a worker has ended")?;
            handle.waker.wake()?;
        }
        Ok(answers)
    }

    /// The answers of all workers.
    fn all<T>(&self, answers: &Receiver<T>) -> Result<Vec<T>> {
        self.handles.iter().map(|_| answers.recv_timeout(ORDER_TIMEOUT).context("a worker does not answer")).collect()
    }

    /// The part of the sockets that the nth worker opens.
    fn share(&self, opening: &Opening, nth: usize) -> Opening {
        let (workers, nth) = (u32::try_from(self.handles.len()).unwrap_or(1).max(1), u32::try_from(nth).unwrap_or(0));
        let before = |nth: u32| u32::try_from(u64::from(opening.count) * u64::from(nth) / u64::from(workers)).unwrap_or(0);
        Opening {
            first: opening.first + before(nth),
            count: before(nth + 1) - before(nth),
            in_flight: opening.in_flight.div_ceil(workers),
            ..opening.clone()
        }
    }

    fn report(&self, set: SetId, published: Published) -> Result<Report> {
        let answers = self.ask(|_, reply| Command::Report(set, published, reply))?;
        let (mut report, mut latency, mut ready_in) = (Report::default(), Samples::new()?, Samples::new()?);
        for part in self.all(&answers)? {
            report.add(&part);
            latency.add(&part.latency);
            ready_in.add(&part.ready_in);
        }
        (report.latency, report.ready_in) = (latency.buckets(), ready_in.buckets());
        Ok(report)
    }

    fn await_closed(&self, set: SetId, sockets: u64, timeout_ms: u64) -> Result<()> {
        until(LOOK, timeout_ms, || {
            let counts = self.ask(|_, reply| Command::ClosedCount(set, reply))?;
            Ok(self.all(&counts)?.iter().sum::<u64>() >= sockets)
        })
        .map(drop)
    }

    fn locate(&self, set: SetId, sequence: u64, timeout_ms: u64) -> Result<()> {
        let mut left = 0;
        let located = until(ASKING, timeout_ms, || {
            let counts = self.ask(|_, reply| Command::Locate(set, sequence, reply))?;
            left = self.all(&counts)?.iter().sum::<u64>();
            Ok(left == 0)
        })?;
        ensure!(located, "{left} sockets are not told that everything up to {sequence} is behind them");
        Ok(())
    }
}

/// Looks again and again, at most for so long. Did it come to be?
#[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do, and no runtime")]
fn until(pause: Duration, timeout_ms: u64, mut is: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = clock::nanos() + timeout_ms.saturating_mul(1_000_000);
    loop {
        if is()? {
            return Ok(true);
        }
        if clock::nanos() >= deadline {
            return Ok(false);
        }
        thread::sleep(pause);
    }
}
