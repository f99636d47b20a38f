//! Sessions that somebody may open.

use anyhow::Result;

use crate::{stage::servers::Stage, strangers::order::Pass};

/// The company of all sessions that strangers may open; each has the agent `agent-{index}`.
pub(super) const CROWD: &str = "crowd";

/// Tokens for so many users of a company, each of an agent of its own.
pub(super) async fn passes(stage: &Stage, company: &str, count: usize) -> Result<Vec<Pass>> {
    let mut passes = Vec::new();
    for index in 0..count {
        let agent = format!("agent-{index}");
        let token = stage.pods[0].token(company, &agent, "stranger").await?;
        passes.push(Pass { path: format!("/ws/{company}/{agent}"), token });
    }
    Ok(passes)
}
