//! The conductor's end of the client processes: as many as the sockets need, all obeying at once.

use std::{net::SocketAddr, ops::Range, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures_util::future::try_join_all;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::protocol::{Arrival, Desks, Opening, Order, Published, Reply, Report, SetId};
use crate::{
    proc::cpu::{self, Cpu},
    samples::Samples,
    stage::keys::Keys,
};

/// Sockets of one process: what the usual limit on files allows, with room for pipes and polls.
pub(crate) const SOCKETS_PER_PROCESS: u32 = 19_000;
/// A process that does not answer for so long, beyond what the order itself may take, is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);

/// All client processes. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Clients {
    processes: Vec<Process>,
    /// Events that were expected so far, in each process.
    expected: Vec<u64>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// Sockets to open, by all processes together.
#[derive(Debug, Clone)]
pub(crate) struct Wish<'a> {
    /// The set that they join.
    pub(crate) set: SetId,
    /// Where each part goes: the nth target gets the nth part of equal size.
    pub(crate) targets: &'a [SocketAddr],
    /// How many, over all targets.
    pub(crate) count: u32,
    /// On which desks.
    pub(crate) desks: Desks,
    /// Handshakes that may be under way at once.
    pub(crate) in_flight: u32,
    /// What opens doors.
    pub(crate) keys: &'a Keys,
    /// Bytes of the kernel's buffer for what was not read yet; none: the system's default.
    pub(crate) receive_buffer: Option<u32>,
    /// What they bring along.
    pub(crate) arrival: Arrival,
}

/// What became of a set of sockets, over all processes.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The counts; its buckets are empty.
    pub(crate) counts: Report,
    /// From publishing to reading.
    pub(crate) latency: Samples,
    /// From the connect to `ready`.
    pub(crate) ready_in: Samples,
}

/// Where the deliveries are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// Events that came in, of those expected since the last time.
    pub(crate) missing: u64,
    /// When the last was read.
    pub(crate) last: u64,
}

impl Clients {
    /// Starts so many processes with so many threads each.
    ///
    /// # Errors
    /// When a process does not start.
    pub(crate) fn start(processes: usize, threads: usize) -> Result<Self> {
        let processes = (0..processes).map(|_| Process::start(threads)).collect::<Result<Vec<_>>>()?;
        let expected = vec![0; processes.len()];
        Ok(Self { processes, expected })
    }

    /// As many processes as these sockets need: one a target, and more if a target has more than one can have.
    ///
    /// # Errors
    /// When a process does not start.
    pub(crate) fn for_sockets(sockets: u32, threads: usize) -> Result<Self> {
        let processes = sockets.div_ceil(SOCKETS_PER_PROCESS).max(1) as usize;
        Self::start(processes, threads.div_ceil(processes))
    }

    /// Opens sockets, and waits until each is ready or has failed. Returns when the last was.
    ///
    /// # Errors
    /// When a process is broken.
    pub(crate) async fn open(&mut self, wish: &Wish<'_>) -> Result<u64> {
        self.open_from(0, wish).await
    }

    /// The same, with indices from `first`: other users than those of the first indices.
    ///
    /// # Errors
    /// When a process is broken.
    pub(crate) async fn open_from(&mut self, first: u32, wish: &Wish<'_>) -> Result<u64> {
        let mut at = 0;
        let processes = self.processes.len();
        // A target after the other within a process, the processes beside each other.
        for (nth, target) in wish.targets.iter().enumerate() {
            let replies = self.all(|process| {
                let indices = part(wish.count, (wish.targets.len(), nth), (processes, process));
                Order::Open(Opening {
                    set: wish.set,
                    target: *target,
                    first: first + indices.start,
                    count: indices.end - indices.start,
                    desks: wish.desks,
                    in_flight: wish.in_flight.div_ceil(u32::try_from(processes).unwrap_or(1)),
                    api_key: wish.keys.api.clone(),
                    token_key: wish.keys.user_token.clone(),
                    receive_buffer: wish.receive_buffer,
                    arrival: wish.arrival,
                })
            });
            at = latest(&replies.await?, at);
        }
        Ok(at)
    }

    /// Says what was published for sockets that were opened by such a wish, and waits from then on for what is new.
    pub(crate) fn expect(&mut self, count: u32, targets: usize, before: Published, now: Published) {
        let processes = self.processes.len();
        for (process, expected) in self.expected.iter_mut().enumerate() {
            let indices = (0..targets).flat_map(|nth| part(count, (targets, nth), (processes, process)));
            *expected += indices.map(|index| u64::from(now.of(index).saturating_sub(before.of(index)))).sum::<u64>();
        }
    }

    /// Waits until all that was expected came in, at most for so long.
    ///
    /// # Errors
    /// When a process is broken.
    pub(crate) async fn received(&mut self, at_most: Duration) -> Result<Received> {
        let timeout_ms = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX);
        let goals = self.expected.clone();
        let goal = |process: usize| goals.get(process).copied().unwrap_or(0);
        let replies = self.all(|process| Order::Expect { deliveries: goal(process), timeout_ms }).await?;
        let mut received = Received { missing: 0, last: 0 };
        for (process, reply) in replies.into_iter().enumerate() {
            let Reply::Received { deliveries, last } = reply else { bail!("a client process gave another answer") };
            received.missing += goal(process).saturating_sub(deliveries);
            received.last = received.last.max(last);
            if let Some(expected) = self.expected.get_mut(process) {
                // What is missing is in the ledgers now; later waits are for what comes then.
                *expected = deliveries;
            }
        }
        Ok(received)
    }

    /// Waits until the server has closed so many sockets of a set, at most for so long.
    ///
    /// # Errors
    /// When a process is broken.
    pub(crate) async fn closed(&mut self, set: SetId, sockets: u64, at_most: Duration) -> Result<()> {
        let timeout_ms = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX);
        let processes = self.processes.len() as u64;
        self.all(|_| Order::ExpectClosed { set, sockets: sockets / processes, timeout_ms }).await.map(drop)
    }

    /// Counts latencies anew from now on.
    ///
    /// # Errors
    /// When a process is broken.
    pub(crate) async fn reset(&mut self) -> Result<()> {
        self.all(|_| Order::Reset).await.map(drop)
    }

    /// Closes every socket of a set without a word. Returns when that was done.
    ///
    /// # Errors
    /// When a process is broken.
    pub(crate) async fn drop_all(&mut self, set: SetId) -> Result<u64> {
        Ok(latest(&self.all(|_| Order::Drop { set }).await?, 0))
    }

    /// Stops reading from the sockets of a set whose index is below `sockets`.
    ///
    /// # Errors
    /// When a process is broken.
    pub(crate) async fn pause(&mut self, set: SetId, sockets: u32) -> Result<()> {
        self.all(|_| Order::Pause { set, sockets }).await.map(drop)
    }

    /// Reads from all of them again.
    ///
    /// # Errors
    /// When a process is broken.
    pub(crate) async fn unpause(&mut self, set: SetId) -> Result<()> {
        self.all(|_| Order::Unpause { set }).await.map(drop)
    }

    /// Waits until every socket of a set that follows the stream was told that everything up to there is behind it.
    ///
    /// # Errors
    /// When one is not told so in time, or a process is broken.
    pub(crate) async fn locate(&mut self, set: SetId, sequence: u64, at_most: Duration) -> Result<()> {
        let timeout_ms = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX);
        self.all(|_| Order::Locate { set, sequence, timeout_ms }).await.map(drop)
    }

    /// What became of a set so far.
    ///
    /// # Errors
    /// When a process is broken.
    pub(crate) async fn report(&mut self, set: SetId, published: Published) -> Result<Outcome> {
        let mut outcome = Outcome { counts: Report::default(), latency: Samples::new()?, ready_in: Samples::new()? };
        for reply in self.all(|_| Order::Report { set, published }).await? {
            let Reply::Report(report) = reply else { bail!("a client process gave another answer") };
            outcome.counts.add(&report);
            outcome.latency.add(&report.latency);
            outcome.ready_in.add(&report.ready_in);
        }
        Ok(outcome)
    }

    /// CPU time of all processes so far.
    pub(crate) fn cpu(&self) -> Cpu {
        self.processes.iter().filter_map(|process| process.child.id()).map(|pid| cpu::of(pid).unwrap_or_default()).sum()
    }

    /// Ends all of them, and waits until they have ended.
    ///
    /// # Errors
    /// When one can't be ended.
    pub(crate) async fn end(self) -> Result<()> {
        for mut process in self.processes {
            process.child.kill().await.context("a client process does not end")?;
        }
        Ok(())
    }

    async fn all(&mut self, order: impl Fn(usize) -> Order) -> Result<Vec<Reply>> {
        try_join_all(self.processes.iter_mut().enumerate().map(|(nth, process)| process.obey(order(nth)))).await
    }
}

impl Process {
    fn start(threads: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["clients", "--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("can't start a client process")?;
        let input = child.stdin.take().context("a pipe that was asked for")?;
        let output = BufReader::new(child.stdout.take().context("a pipe that was asked for")?).lines();
        Ok(Self { child, input, output })
    }

    async fn obey(&mut self, order: Order) -> Result<Reply> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        self.input.write_all(&line).await.context("a client process has ended")?;
        let answer = timeout(ANSWER_TIMEOUT, self.output.next_line()).await.context("a client process does not answer")??;
        match serde_json::from_str(&answer.context("a client process has ended")?)? {
            Reply::Failed(why) => bail!("a client process failed: {why}"),
            reply => Ok(reply),
        }
    }
}

/// Where the nth of so many equal parts begins.
fn share(count: u32, parts: usize, nth: usize) -> u32 {
    u32::try_from(u64::from(count) * nth as u64 / parts.max(1) as u64).unwrap_or(u32::MAX)
}

/// The indices that a process opens at a target: of as many, the nth.
fn part(count: u32, (targets, target): (usize, usize), (processes, process): (usize, usize)) -> Range<u32> {
    let (first, end) = (share(count, targets, target), share(count, targets, target + 1));
    first + share(end - first, processes, process)..first + share(end - first, processes, process + 1)
}

fn latest(replies: &[Reply], at_least: u64) -> u64 {
    let times = replies.iter().map(|reply| if let Reply::Done { at } = reply { *at } else { 0 });
    times.fold(at_least, u64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_is_opened_by_one_process_at_one_target() {
        for (count, targets, processes) in [(10, 1, 1), (10, 3, 2), (7, 4, 4), (1, 2, 3), (19_001, 2, 3)] {
            let mut indices: Vec<u32> = (0..targets)
                .flat_map(|target| (0..processes).map(move |process| (target, process)))
                .flat_map(|(target, process)| part(count, (targets, target), (processes, process)))
                .collect();
            indices.sort_unstable();
            assert_eq!(indices, (0..count).collect::<Vec<_>>(), "{targets} {processes}");
        }
    }
}
