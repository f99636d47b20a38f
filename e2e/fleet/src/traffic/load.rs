//! Many sessions over all pods, and publishers that keep them busy.

use std::time::Duration;

use anyhow::{Result, ensure};
use daisi_ws_testbed::wait;
use futures_util::future::try_join_all;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    client::Client,
    evidence::Evidence,
    publisher::{Publisher, Storing},
};
use crate::{
    containers::{cluster::Cluster, pod::SharedIp},
    identity::{Kind, Subject, Who},
};

/// Companies of the load.
const COMPANIES: [&str; 2] = ["acme", "globex"];
/// Agents of each company.
const AGENTS: usize = 3;
/// Users of each agent: with two companies of three agents, sixty sessions.
const USERS: usize = 10;
/// Chats of an agent; its users select them in turn.
const CHATS: usize = 2;
/// Between two events of one agent: 31 a second, of which 28 concern every one of its sessions.
const PERIOD: Duration = Duration::from_millis(32);
/// What one of the publishers of a rush stores a second: so many that no few of them wait for one another's confirmations.
const EACH: u32 = 250;
/// Of a crowd, so many a pod connect at a time; each company has so many agents, and so much time is between two events of one, at
/// other moments than those of the others: what is to be seen is not what a burst does to a machine.
const CROWD_AT_ONCE: usize = 50;
const CROWD_AGENTS: usize = 30;
const CROWD_PERIOD: Duration = Duration::from_secs(10);
const LOAD: Pace = Pace { agents: AGENTS, period: PERIOD, spread: Duration::ZERO };
const CROWD: Pace = Pace { agents: CROWD_AGENTS, period: CROWD_PERIOD, spread: CROWD_PERIOD };
/// Longest wait until everybody has a socket.
const EVERYBODY: Duration = Duration::from_secs(60);
/// Longest wait until everything that was stored is settled.
const SETTLED: Duration = Duration::from_secs(90);
/// How long ledgers must have been still before they are closed.
const QUIET: Duration = Duration::from_secs(1);

/// A load on a cluster.
pub struct Load {
    /// The sessions: users first, then an admin a pod.
    pub clients: Vec<Client>,
    /// The connection that events are stored on.
    pub publisher: Publisher,
    storing: Storing,
    started: Instant,
    /// How its sessions are started.
    begin: Begin,
}

/// What is stored how often.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Of each company.
    agents: usize,
    /// Between two events of an agent.
    period: Duration,
    /// Their first events are spread over this time.
    spread: Duration,
}

/// Starts a session.
type Begin = fn(Who, String, Vec<SharedIp>) -> Client;

/// The sessions of the load: sixty users, and an admin a pod.
#[must_use]
pub fn sessions(pods: usize) -> Vec<Who> {
    let mut sessions = Vec::new();
    for user in 0..USERS {
        for company in COMPANIES {
            for agent in 0..AGENTS {
                sessions.push(Who::User {
                    company: company.to_owned(),
                    agent: format!("agent-{agent}"),
                    user: format!("user-{user}@example.com"),
                    chat: Some(format!("chat.{}@s.example", user % CHATS)),
                });
            }
        }
    }
    for admin in 0..pods {
        // Every other admin may see one company only.
        let company = (admin % 2 == 1).then(|| COMPANIES[0].to_owned());
        sessions.push(Who::Admin { admin: format!("admin-{admin}"), company });
    }
    sessions
}

/// What one agent's publisher stores, in turn: mostly chats, which all of the agent's sessions see.
fn subjects(company: &str, agent: usize) -> Vec<Subject> {
    let kinds = (0..25).map(|turn| match turn {
        8 => Kind::Messages("chat.0@s.example".to_owned()),
        16 => Kind::Messages("chat.1@s.example".to_owned()),
        24 => Kind::Agents,
        _ => Kind::Chats,
    });
    kinds.map(|kind| Subject { company: company.to_owned(), agent: format!("agent-{agent}"), kind }).collect()
}

impl Load {
    /// Connects everybody, spread over the pods, and then starts to publish.
    ///
    /// # Errors
    /// When somebody gets no socket in time.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        Self::of(cluster, Client::start).await
    }

    /// The same with clients that move when they are asked to.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_moving(cluster: &Cluster) -> Result<Self> {
        Self::of(cluster, Client::start_moving).await
    }

    /// A crowd of users that move when they are asked to: so many at each pod, whose second socket is opened at `then`, which may
    /// have no address yet. Little is published for each.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_crowd(cluster: &Cluster, at_each: usize, then: &SharedIp) -> Result<Self> {
        let mut clients: Vec<Client> = Vec::new();
        for first in (0..at_each).step_by(CROWD_AT_ONCE) {
            let numbers = first..at_each.min(first + CROWD_AT_ONCE);
            let places = numbers.flat_map(|number| cluster.pods.iter().map(move |pod| (number, pod)));
            let begun = places.enumerate().map(|(turn, (number, pod))| async move {
                let who = Who::User {
                    company: COMPANIES[turn % COMPANIES.len()].to_owned(),
                    agent: format!("agent-{}", turn % CROWD_AGENTS),
                    user: format!("{number}@{}", pod.id),
                    chat: None,
                };
                let token = pod.token(&who).await?;
                anyhow::Ok(Client::start_moving(who, token, vec![pod.shared_ip(), SharedIp::clone(then)]))
            });
            let before = clients.len();
            clients.extend(try_join_all(begun).await?);
            for client in &clients[before..] {
                timeout(EVERYBODY, client.ready()).await??;
            }
        }
        Self::publish(cluster, clients, Client::start_moving, CROWD).await
    }

    async fn of(cluster: &Cluster, begin: Begin) -> Result<Self> {
        let mut clients = Vec::new();
        let ips: Vec<_> = cluster.pods.iter().map(crate::containers::pod::Pod::shared_ip).collect();
        for (turn, who) in sessions(cluster.pods.len()).into_iter().enumerate() {
            let token = cluster.pods[turn % cluster.pods.len()].token(&who).await?;
            let mut pods = ips.clone();
            // Every pod gets a share of every agent's sessions.
            pods.rotate_left((turn / (COMPANIES.len() * AGENTS) + turn) % ips.len());
            clients.push(begin(who, token, pods));
        }
        for client in &clients {
            timeout(EVERYBODY, client.ready()).await??;
        }
        Self::publish(cluster, clients, begin, LOAD).await
    }

    async fn publish(cluster: &Cluster, clients: Vec<Client>, begin: Begin, pace: Pace) -> Result<Self> {
        let publisher = Publisher::connect(&cluster.nats_url()).await?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let agents = COMPANIES.into_iter().flat_map(|company| (0..pace.agents).map(move |agent| (company, agent)));
        let step = pace.spread / u32::try_from(COMPANIES.len() * pace.agents)?;
        for ((company, agent), number) in agents.zip(0_u32..) {
            let stored = publisher.clone().keep_storing(subjects(company, agent), pace.period, stopped.clone());
            tasks.spawn(async move {
                sleep(step * number).await;
                stored.await;
            });
        }
        Ok(Self { clients, publisher, storing: Storing { stop, tasks }, started: Instant::now(), begin })
    }

    /// Stores so many more events a second for all sessions of this user's agent, until the load stops.
    pub fn rush(&mut self, who: &Who, per_second: u32) {
        let publishers = per_second.div_ceil(EACH);
        let period = Duration::from_secs(1) * publishers / per_second.max(1);
        for subject in (0..publishers).filter_map(|_| who.chats()) {
            let stopped = self.storing.stop.subscribe();
            self.storing.tasks.spawn(self.publisher.clone().keep_storing(vec![subject], period, stopped));
        }
    }

    /// Connects more sessions, each to the pods of these indices in turn, and waits until all are ready.
    ///
    /// # Errors
    /// When one gets no socket in time.
    pub async fn join(&mut self, cluster: &Cluster, newcomers: impl IntoIterator<Item = (Who, Vec<usize>)>) -> Result<()> {
        let first = self.clients.len();
        for (who, pods) in newcomers {
            let token = cluster.pods[0].token(&who).await?;
            let pods = pods.into_iter().map(|pod| cluster.pods[pod].shared_ip());
            self.clients.push((self.begin)(who, token, pods.collect()));
        }
        for client in &self.clients[first..] {
            timeout(EVERYBODY, client.ready()).await??;
        }
        Ok(())
    }

    /// Lets it run.
    pub async fn run(&self, time: Duration) {
        sleep(time).await;
    }

    /// Waits until everybody has a socket.
    ///
    /// # Errors
    /// When somebody has none in time.
    pub async fn everybody_is_connected(&self) -> Result<()> {
        wait::until("everybody has a socket", EVERYBODY, || std::future::ready(self.clients.iter().all(Client::is_connected)))
            .await
    }

    /// The number of lines in all ledgers.
    fn lines(&self) -> usize {
        self.clients.iter().map(|client| client.look(<[_]>::len)).sum()
    }

    /// Stops publishing, waits until everything is settled and the ledgers are still, and takes them.
    ///
    /// # Errors
    /// When something stays unsettled.
    pub async fn stop(mut self) -> Result<Evidence> {
        let _ = self.storing.stop.send(true);
        while self.storing.tasks.join_next().await.is_some() {}
        let ended = Instant::now();
        let publisher = &self.publisher;
        wait::until("every event is settled", SETTLED, || async { matches!(publisher.backlog().await, Ok((0, 0))) }).await?;
        let mut lines = 0;
        while lines != self.lines() {
            lines = self.lines();
            sleep(QUIET).await;
        }
        let mut stopping = JoinSet::new();
        for (turn, client) in self.clients.into_iter().enumerate() {
            stopping.spawn(async move { (turn, client.stop().await) });
        }
        let mut ledgers = stopping.join_all().await;
        ledgers.sort_by_key(|(turn, _)| *turn);
        ensure!(!ledgers.is_empty(), "there were no sessions");
        let ledgers = ledgers.into_iter().map(|(_, ledger)| ledger).collect();
        Ok(Evidence { ledgers, published: self.publisher.records(), started: self.started, ended })
    }
}
