//! Sockets that get some events, are cut, miss some, and come back at once: in turns as new ones and with their place.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{sleep, timeout};

use super::storm::{self, Storm};
use crate::{
    client::protocol::{Arrival, Desks, Published},
    conduct::{
        conductor::{Conductor, progress},
        figures::is_sound,
        side::{AT_LEISURE, Group, Side},
        turns::Turns,
    },
    options::Scenario,
    report::{Results, Size},
    stage::servers::Servers,
};

/// What each socket gets before it is cut.
const BEFORE: u32 = 2;
/// What each misses.
const MISSED: u32 = 5;
/// Storms of each kind: the middle one counts.
const STORMS: u32 = 3;
/// What is not delivered, or not settled, so long after it was published will not be.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at how many sockets a pod has.
const LOOK: Duration = Duration::from_millis(50);
const OPEN_SOCKETS: &str = "dws_active_connections";

/// Each socket misses events of its own, or all miss the same.
const KINDS: [(Scenario, &str, Desks); 2] =
    [(Scenario::StormResume, "storm-resume", Desks::Own), (Scenario::StormResumeShared, "storm-resume-shared", Desks::Shared)];

/// The sockets, which come back as ever new sets.
struct Population<'a> {
    side: &'a mut Side,
    scenario: &'static str,
    group: Group,
    /// Events that were published for each so far.
    published: u32,
}

/// Measures those of them that are wanted.
///
/// # Errors
/// When a server fails, or a socket is not sent exactly what it missed.
pub(crate) async fn measure(conductor: &Conductor) -> Result<Results> {
    let sizes = conductor.sizes;
    let size = Size { sockets: sizes.sockets, pods: sizes.pods };
    let mut side = Side::pods(conductor, size, &vec![[].as_slice(); size.pods as usize]).await?;
    let (mut results, mut next) = (Results::default(), 0);
    for (wanted, scenario, desks) in KINDS {
        if !conductor.wants(wanted) {
            continue;
        }
        let arrival = Arrival::Following { first: 0 };
        let group = Group { set: next, count: size.sockets * size.pods, desks, in_flight: AT_LEISURE, arrival };
        progress(format_args!("{scenario}: {} sockets come back", group.count));
        conductor.room_for(group.count).await?;
        side.open(group).await?;
        let mut population = Population { side: &mut side, scenario, group, published: 0 };
        results.add(population.storms(conductor, size).await?);
        let last = population.group.set;
        side.clients.drop_all(last).await?;
        all_gone(&side.servers).await?;
        next = last + 1;
    }
    side.end().await?;
    Ok(results)
}

impl Population<'_> {
    async fn storms(&mut self, conductor: &Conductor, size: Size) -> Result<Results> {
        let (mut resumed, mut plain) = (Turns::default(), Turns::default());
        self.group.in_flight = conductor.sizes.in_flight;
        'all: for _ in 0..if conductor.is_quick() { 1 } else { STORMS } {
            for (resumes, turns) in [(false, &mut plain), (true, &mut resumed)] {
                conductor.room_for(self.group.count).await?;
                let storm = self.storm(resumes).await?;
                let was_whole = storm.was_whole();
                turns.add(storm);
                if !was_whole {
                    // Who lacks something can't be held to what comes next.
                    break 'all;
                }
            }
        }
        let scenario = self.scenario;
        let curves = [(Servers::GATEWAY, &resumed), ("without resume", &plain)];
        Ok(Results {
            figures: storm::figures(scenario, size, &resumed, &plain),
            curves: curves.into_iter().filter_map(|(server, turns)| storm::curve(scenario, server, turns)).collect(),
            notes: storm::notes(scenario, &plain).chain(storm::notes(scenario, &resumed)).collect(),
            ..Results::default()
        })
    }

    /// Cuts all sockets, publishes what they miss, and has them come back.
    async fn storm(&mut self, resumes: bool) -> Result<Storm> {
        self.get_some().await?;
        let Group { set, count, desks, .. } = self.group;
        self.side.clients.drop_all(set).await?;
        all_gone(&self.side.servers).await?;
        let first = self.published;
        self.published += MISSED;
        self.side.publisher.publish_to_each(desks, count, first..self.published).await?;
        // Nobody is there for them, but they have to be found to be nobody's: no part of what coming back costs.
        self.side.nats().settled().await?;
        self.group.set += 1;
        self.group.arrival = match resumes {
            true => Arrival::Returning { first, missed: MISSED },
            false => Arrival::Following { first: self.published },
        };
        storm::measure(self.scenario, self.side, self.group).await
    }

    /// Each socket gets some events, and is told that they are behind it.
    async fn get_some(&mut self) -> Result<()> {
        let Group { set, count, desks, .. } = self.group;
        let before = self.published;
        self.published += BEFORE;
        let Side { clients, servers, publisher, .. } = &mut *self.side;
        clients.expect(count, servers.addresses().len(), Published::Each(before), Published::Each(self.published));
        let last = publisher.publish_to_each(desks, count, before..self.published).await?;
        let missing = clients.received(TIMEOUT).await?.missing;
        ensure!(missing == 0, "{missing} events are missing after {} s", TIMEOUT.as_secs());
        clients.locate(set, last, TIMEOUT).await?;
        let outcome = clients.report(set, Published::Each(self.published)).await?;
        is_sound(self.scenario, servers, &outcome, u64::from(count))
    }
}

/// Waits until no pod has a socket.
async fn all_gone(servers: &Servers) -> Result<()> {
    let gone = async {
        while servers.metric(OPEN_SOCKETS, "").await? > 0.0 {
            sleep(LOOK).await;
        }
        Ok(())
    };
    match timeout(TIMEOUT, gone).await {
        Ok(gone) => gone,
        Err(_) => anyhow::bail!("sockets that were cut are still there after {} s", TIMEOUT.as_secs()),
    }
}
