//! What Linux says of this process, under the names that every Prometheus client gives it.

use std::{fs, io, str::FromStr};

use prometheus::{
    Counter, Gauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// The metrics' names, each with its explanation.
const METRICS: [(&str, &str); 7] = [
    ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
    ("process_open_fds", "Number of open file descriptors."),
    ("process_max_fds", "Maximum number of open file descriptors."),
    ("process_virtual_memory_bytes", "Virtual memory size in bytes."),
    ("process_resident_memory_bytes", "Resident memory size in bytes."),
    ("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
    ("process_threads", "Number of OS threads in the process."),
];
/// Of these, the one that only grows.
const CPU: &str = METRICS[0].0;

/// Reads `/proc` at each scrape; what can't be read then is left out of it.
pub(super) struct Process {
    descriptions: Vec<Desc>,
    /// When the process began, in seconds since the epoch: it stays.
    start: Option<f64>,
}

impl Process {
    pub(super) fn of_self() -> prometheus::Result<Self> {
        let descriptions = METRICS
            .iter()
            .map(|(name, help)| Desc::new((*name).to_owned(), (*help).to_owned(), Vec::new(), Default::default()))
            .collect::<prometheus::Result<_>>()?;
        Ok(Self { descriptions, start: start().ok() })
    }

    fn values(&self) -> [Option<f64>; METRICS.len()] {
        let stat = Stat::read().ok();
        [
            stat.as_ref().map(|stat| stat.cpu),
            open_fds().ok(),
            // No limit is no number.
            getrlimit(Resource::Nofile).current.map(lossy),
            stat.as_ref().map(|stat| stat.virtual_bytes),
            stat.as_ref().map(|stat| stat.resident_bytes),
            self.start,
            stat.as_ref().map(|stat| stat.threads),
        ]
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let known = METRICS.iter().zip(self.values()).filter_map(|(metric, value)| Some((metric, value?)));
        known.filter_map(|((name, help), value)| family(name, help, value).ok()).flatten().collect()
    }
}

/// One metric with its value of now. Made anew each time, so that two scrapes at once add nothing twice.
fn family(name: &str, help: &str, value: f64) -> prometheus::Result<Vec<MetricFamily>> {
    let described = Opts::new(name, help);
    if name == CPU {
        let counter = Counter::with_opts(described)?;
        counter.inc_by(value);
        return Ok(counter.collect());
    }
    let gauge = Gauge::with_opts(described)?;
    gauge.set(value);
    Ok(gauge.collect())
}

// ---- /proc
// -----------------------------------------------------------------------------------------------------------------------

/// What is read of `/proc/self/stat`, in the metrics' units.
struct Stat {
    cpu: f64,
    threads: f64,
    /// Seconds after the machine's start.
    started: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    fn read() -> io::Result<Self> {
        let ticks = lossy(clock_ticks_per_second());
        let pages = page_size() as f64;
        Self::parse(&fs::read_to_string("/proc/self/stat")?, ticks, pages).ok_or_else(unknown)
    }

    /// The second field, the program's name in brackets, may itself hold blanks and brackets; proc(5) counts fields from one.
    fn parse(text: &str, ticks: f64, page: f64) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let field = |number: usize| f64::from_str(fields.get(number - 3)?).ok();
        Some(Self {
            cpu: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            started: field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page,
        })
    }
}

fn open_fds() -> io::Result<f64> {
    // Reading the folder holds one open.
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as f64)
}

fn start() -> io::Result<f64> {
    let booted = fs::read_to_string("/proc/stat")?;
    let booted =
        booted.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|seconds| f64::from_str(seconds.trim()).ok());
    // Whole seconds, as the machine's start is known to no more.
    Ok((booted.ok_or_else(unknown)? + Stat::read()?.started).floor())
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not as proc(5) says")
}

/// Exact below 2^53, which no limit and no tick reaches.
fn lossy(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs::File, hint::black_box};

    use super::*;

    fn read() -> BTreeMap<&'static str, f64> {
        let values = Process::of_self().unwrap().values();
        METRICS.iter().zip(values).map(|((name, _), value)| (*name, value.unwrap())).collect()
    }

    #[test]
    fn a_programs_name_may_hold_what_separates_fields() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 17 0 4200 1000000 25 18446744073709551615";
        for name in ["gateway", "a (b) c", ") S 1 ("] {
            let stat = Stat::parse(&format!("42 ({name}) {rest}\n"), 100.0, 4096.0).unwrap();
            assert_eq!((stat.cpu, stat.threads, stat.started), (2.0, 17.0, 42.0));
            assert_eq!((stat.virtual_bytes, stat.resident_bytes), (1_000_000.0, 102_400.0));
        }
        for broken in
            ["", "42 (gateway", "42 (gateway) S 1", "42 (gateway) S 1 2 3 4 5 6 7 8 9 10 x x 0 0 20 0 17 0 4200 1000000 25"]
        {
            assert!(Stat::parse(broken, 100.0, 4096.0).is_none(), "{broken}");
        }
    }

    #[test]
    fn what_is_read_is_of_this_process() {
        let before = read();
        // Other tests open and close files too: many, so that those do not matter.
        let opened: Vec<File> = (0..200).map(|_| File::open("/proc/self/stat").unwrap()).collect();
        let memory = black_box(vec![1_u8; 64 << 20]);
        let after = read();
        assert!(after["process_open_fds"] >= before["process_open_fds"] + 100.0, "{before:?} {after:?}");
        assert!(after["process_resident_memory_bytes"] >= before["process_resident_memory_bytes"] + f64::from(32 << 20));
        assert!(after["process_virtual_memory_bytes"] > after["process_resident_memory_bytes"]);
        assert!(after["process_max_fds"] > after["process_open_fds"] && after["process_threads"] >= 1.0);
        drop((opened, memory));
    }

    #[test]
    fn it_started_before_now_and_its_time_only_grows() {
        let before = read();
        let age = crate::runtime::clock::now().as_secs_f64() - before["process_start_time_seconds"];
        assert!((-2.0..86_400.0).contains(&age), "{age}");
        let mut spent = 0_u64;
        // A fifth of a second of this thread's, at most some seconds of the clock's.
        while read()[CPU] < before[CPU] + 0.2 {
            spent = (0..1_000_000_u64).fold(spent, |sum, number| black_box(sum.wrapping_mul(31) ^ number));
        }
        assert!(read()[CPU] >= before[CPU] + 0.2, "{spent}");
    }

    #[test]
    fn a_scrape_has_all_of_them_and_one_counter() {
        let families = Process::of_self().unwrap().collect();
        let names: Vec<_> = families.iter().map(MetricFamily::name).collect();
        assert_eq!(names, METRICS.map(|(name, _)| name));
        let counters = families.iter().filter(|family| family.get_field_type() == prometheus::proto::MetricType::COUNTER);
        assert_eq!(counters.map(MetricFamily::name).collect::<Vec<_>>(), [CPU]);
    }
}
