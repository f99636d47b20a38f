//! A hint to the processor, in safe Rust.

/// Has the processor fetch what these values are read from. Called for several places one after another, the fetches go on side
/// by side; without it, each is waited for when its turn comes.
///
/// The reads are all there is to it: nothing waits for a value that nobody uses. `black_box` keeps the compiler from dropping
/// them for that very reason; the processor's own instructions for it are unsafe functions, and exist for one architecture each.
/// What it brings can be measured with the benchmarks of `hot_path` (`deliver`).
#[inline(always)]
pub(crate) fn prefetch<T>(read: T) {
    std::hint::black_box(read);
}
