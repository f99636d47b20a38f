//! Which lines are written, by level and target: what the configuration asks for, and what it can't ask for.

use tracing::{Level, Metadata, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    EnvFilter, Registry,
    layer::{Context, Filter},
    reload,
};

use super::audit;
use crate::{config::ConfigWatch, runtime::lifecycle::Tasks};

/// Targets of this workspace begin so.
const OURS: &str = "daisi_ws";

/// A text is no filter of logs.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A bare word that names no level: as a target it would silence everything else.
    #[error("{0:?} is none of trace, debug, info, warn, error and off")]
    Level(String),
    /// Not in the syntax of filters.
    #[error(transparent)]
    Syntax(#[from] tracing_subscriber::filter::ParseError),
}

/// Reads a filter of logs, as in `info,daisi_ws_service=debug`. Audit lines pass it, whatever it says.
///
/// # Errors
/// When a part is neither a level nor in the form `target=level`.
pub fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    if let Some(word) = parts.iter().find(|part| !part.contains(['=', '[']) && !is_level(part)) {
        return Err(FilterError::Level((*word).to_owned()));
    }
    Ok(EnvFilter::try_new(parts.join(","))?.add_directive(format!("{}=info", audit::TARGET).parse()?))
}

/// Changes the level of logs while they are written. Clones change the same.
#[derive(Debug, Clone)]
pub struct LevelHandle {
    pub(super) filter: reload::Handle<EnvFilter, Registry>,
}

impl LevelHandle {
    /// Puts another filter in force; events under way may still go by the old one.
    ///
    /// # Errors
    /// When the text is no filter. The old one stays.
    pub fn set(&self, level: &str) -> Result<(), FilterError> {
        let new = filter(level)?;
        // It fails only when the subscriber is gone, and then nobody logs.
        let _ = self.filter.reload(new);
        Ok(())
    }

    /// Follows the configuration's `telemetry.log_level` until the drain begins.
    pub fn follow(&self, config: &ConfigWatch, tasks: &Tasks) {
        let (this, mut snapshots, soft) = (self.clone(), config.subscribe(), tasks.shutdown().soft.clone());
        let mut level = snapshots.borrow_and_update().telemetry.log_level.clone();
        tasks.spawn("log-level", async move {
            while let Some(Ok(())) = soft.run_until_cancelled(snapshots.changed()).await {
                let new = snapshots.borrow_and_update().telemetry.log_level.clone();
                if new != level && this.set(&new).is_ok() {
                    level = new;
                }
            }
        });
    }
}

/// Lets nothing of a library through below `debug`, whatever the configuration asks for: at `trace` some write down whole frames,
/// with payloads, keys and tokens in them. Our own lines have none at any level.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoPayloads;

impl NoPayloads {
    fn passes(metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG || metadata.target().starts_with(OURS)
    }
}

impl<S> Filter<S> for NoPayloads {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::passes(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Lines of the `log` crate share a few places in the code; each is asked about.
        if metadata.target() == "log" {
            Interest::sometimes()
        } else if Self::passes(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}
