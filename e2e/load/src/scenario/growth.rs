//! What a connect, an idle socket and a delivery cost with more and more sockets and pods: it should be the same.

use std::time::Duration;

use anyhow::Result;

use super::shared::{
    fan_out,
    trials::{self, All, Measured, Plan},
};
use crate::{
    conduct::conductor::{Conductor, progress},
    report::{Figure, Results, Size},
};

const SOCKETS: [u32; 4] = [1_000, 5_000, 10_000, 19_000];
const PODS: [u32; 3] = [1, 2, 4];
/// In a rehearsal.
const FEW_SOCKETS: [u32; 2] = [50, 150];
const FEW_PODS: [u32; 2] = [1, 2];
/// Sockets of each pod that are there before a size is measured, as far as it takes so many more: what a process needs once, for
/// its first sockets, is no part of what a further one costs, and would be half of what a thousand do.
const FORERUNNERS: u32 = 2_000;
/// Sockets that a process has files for.
const MOST_SOCKETS: u32 = 19_500;
/// Connects that a size is measured by, at least, but for the first of all sockets: two seconds of them, where a thousand take a
/// tenth of one.
const CONNECTS: u32 = 20_000;
/// Deliveries, likewise.
const DELIVERIES: u32 = 400_000;
/// Turns of connects, and of deliveries, at least and at most: of fewer none would be in the middle.
const CONNECT_TURNS: (u32, u32) = (3, 20);
const FAN_OUT_TURNS: (u32, u32) = (3, 20);

/// A cost, as a point of the plot and as the figure that says how flat its curve is.
struct Cost {
    name: &'static str,
    unit: &'static str,
    flatness: &'static str,
    ratio: &'static str,
    of: fn(&Measured) -> Option<f64>,
}

const COSTS: [Cost; 3] = [
    Cost {
        name: "pod CPU per connect",
        unit: "us",
        flatness: "connect: most to least",
        ratio: "connect, times floor: most to least",
        of: |measured| Some(measured.connects.middle(|turn| turn.pod_micros)),
    },
    Cost {
        name: "memory per socket",
        unit: "KB",
        flatness: "idle: most to least",
        ratio: "idle, times floor: most to least",
        of: |measured| measured.idle.as_ref().map(|idle| idle.kilobytes),
    },
    Cost {
        name: "CPU per delivery",
        unit: "us",
        flatness: "fan-out: most to least",
        ratio: "fan-out, times floor: most to least",
        of: |measured| Some(measured.fan_out.middle(|turn| turn.micros)),
    },
];

/// Measures every size.
///
/// # Errors
/// When a server fails, or does not deliver.
pub(super) async fn measure(conductor: &Conductor) -> Result<Results> {
    let (sockets, pods) = if conductor.is_quick() { (&FEW_SOCKETS[..], &FEW_PODS[..]) } else { (&SOCKETS[..], &PODS[..]) };
    let mut figures = Vec::new();
    for pods in pods {
        for sockets in sockets {
            let size = Size { sockets: *sockets, pods: *pods };
            progress(format_args!("growth: {} pods of {} sockets", size.pods, size.sockets));
            let All { gateway, floor, .. } = trials::all(conductor, size, plan(conductor, size)).await?;
            for Cost { name, unit, of, .. } in &COSTS {
                let (value, floor) = (of(&gateway).unwrap_or(f64::NAN), floor.as_ref().and_then(of));
                progress(format_args!("{name}: {value:.2} {unit}, floor {:.2}", floor.unwrap_or(f64::NAN)));
                figures.push(size.figure("growth", name, unit, value, floor));
            }
        }
    }
    figures.extend(COSTS.iter().flat_map(|cost| [flatness(cost, &figures), ratio(cost, &figures)]).flatten().collect::<Vec<_>>());
    Ok(Results { figures, ..Results::default() })
}

fn plan(conductor: &Conductor, Size { sockets, pods }: Size) -> Plan {
    let turns = |all: u32, (least, most): (u32, u32)| {
        if conductor.is_quick() { 1 } else { (all / (sockets * pods)).clamp(least, most) }
    };
    Plan {
        forerunners: if conductor.is_quick() { sockets } else { FORERUNNERS.min(MOST_SOCKETS - sockets) },
        connects: 1 + turns(CONNECTS, CONNECT_TURNS),
        idle: Some(if conductor.is_quick() { Duration::from_millis(200) } else { Duration::from_secs(5) }),
        fan_out: turns(DELIVERIES / fan_out::EVENTS, FAN_OUT_TURNS),
        bursts: 0,
        storms: 0,
        beside: false,
    }
}

/// No size: of all of them.
const ALL: Size = Size { sockets: 0, pods: 0 };

/// The most that it cost at any size, by the least; none if that is nothing, as the memory of a few sockets can be.
fn flatness(cost: &Cost, figures: &[Figure]) -> Option<Figure> {
    let gateway = most_to_least(cost, figures, |figure| Some(figure.value))?;
    Some(ALL.figure("growth", cost.flatness, "times", gateway, most_to_least(cost, figures, |figure| figure.floor)))
}

/// The same of what it cost as a multiple of what it cost the floor, where that was measured.
fn ratio(cost: &Cost, figures: &[Figure]) -> Option<Figure> {
    let ratio =
        most_to_least(cost, figures, |figure| figure.floor.filter(|floor| *floor > 0.0).map(|floor| figure.value / floor))?;
    Some(ALL.figure("growth", cost.ratio, "times", ratio, None))
}

fn most_to_least(cost: &Cost, figures: &[Figure], of: fn(&Figure) -> Option<f64>) -> Option<f64> {
    let values = || figures.iter().filter(|figure| figure.name == cost.name).filter_map(of);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    (least > 0.0 && most > 0.0).then_some(most / least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flatness_is_the_most_by_the_least_of_the_same_cost() {
        let size = Size { sockets: 1, pods: 1 };
        let figures = [
            size.figure("growth", COSTS[0].name, "us", 10.0, Some(4.0)),
            size.figure("growth", COSTS[1].name, "KB", 99.0, None),
            size.figure("growth", COSTS[0].name, "us", 12.0, Some(5.0)),
        ];
        let flat = flatness(&COSTS[0], &figures).unwrap();
        assert!((flat.value - 1.2).abs() < 1e-9 && (flat.floor.unwrap() - 1.25).abs() < 1e-9, "{flat:?}");
        assert_eq!(flatness(&COSTS[1], &figures).unwrap().floor, None);
        // 2.5 and 2.4 times the floor.
        assert!((ratio(&COSTS[0], &figures).unwrap().value - 2.5 / 2.4).abs() < 1e-9);
        assert!(ratio(&COSTS[1], &figures).is_none());
    }
}
