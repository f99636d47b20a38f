//! `token`: mints a token with the configured key.

use std::{io, time::Duration};

use clap::Subcommand;
use daisi_ws_domain::{
    claims::{AdminClaims, UserClaims},
    ids::{AdminId, AgentId, CompanyId, UserId},
};

use super::error::CliError;
use crate::{
    application::auth::token::TokenKey,
    config::{Secret, Secrets, Sources},
};

/// Arguments of `token`, which makes a token with the configured keys and prints it.
#[derive(Debug, Subcommand)]
pub enum Args {
    /// A token for a user of one agent.
    User(UserArgs),
    /// A token for an administrator.
    Admin(AdminArgs),
}

/// Arguments of `token user`: whose sessions it opens.
#[derive(Debug, clap::Args)]
pub struct UserArgs {
    /// The company whose events the session sees.
    #[arg(long, value_parser = CompanyId::parse)]
    pub company: CompanyId,
    /// The agent of it.
    #[arg(long, value_parser = AgentId::parse)]
    pub agent: AgentId,
    /// The user; one live socket has its session.
    #[arg(long, value_parser = UserId::parse)]
    pub user: UserId,
    /// Seconds that the token lives.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    pub ttl_seconds: u64,
}

/// Arguments of `token admin`: an id, and what it may see.
#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// The admin; one live socket has its session.
    #[arg(long, value_parser = AdminId::parse)]
    pub admin: AdminId,
    /// Tenant whose agent events it sees; all without.
    #[arg(long)]
    pub company: Option<String>,
    /// Desk whose agent events it sees; all without.
    #[arg(long)]
    pub agent: Option<String>,
    /// Tenant beyond which it may not see; none without.
    #[arg(long)]
    pub restriction: Option<String>,
    /// Seconds that the token lives.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    pub ttl_seconds: u64,
}

impl AdminArgs {
    /// Those of an administrator who sees the events of all agents.
    pub(super) fn all_seeing(admin: AdminId, ttl_seconds: u64) -> Self {
        Self { admin, company: None, agent: None, restriction: None, ttl_seconds }
    }
}

pub(super) fn run(args: &Args, sources: &Sources, out: &mut dyn io::Write) -> Result<(), CliError> {
    let token = match args {
        Args::User(args) => for_user(args, sources)?,
        Args::Admin(args) => for_admin(args, sources)?,
    };
    Ok(writeln!(out, "{token}")?)
}

/// A user's token, by the key that is configured now.
pub(super) fn for_user(args: &UserArgs, sources: &Sources) -> Result<String, CliError> {
    let config = sources.load(Secrets::Only(&["auth.token_aes_key"]))?;
    seal(&config.auth.token_aes_key, &user_plaintext(args, crate::runtime::clock::now())?)
}

/// An administrator's token, by the key that is configured now.
pub(super) fn for_admin(args: &AdminArgs, sources: &Sources) -> Result<String, CliError> {
    let config = sources.load(Secrets::Only(&["auth.admin_token_aes_key"]))?;
    seal(&config.auth.admin_token_aes_key, &admin_plaintext(args, crate::runtime::clock::now())?)
}

/// Encrypts a token's plaintext with a validated key of 64 hex characters; gives the text form that `docs/protocol.md` describes.
///
/// # Errors
/// When the system has no randomness to give.
pub fn seal(key: &Secret, plaintext: &[u8]) -> Result<String, CliError> {
    TokenKey::parse(key).map_err(CliError::failed)?.seal(plaintext).map_err(CliError::failed)
}

fn expiry(now: Duration, ttl_seconds: u64) -> Duration {
    // Whole seconds, as the token API has it; a life beyond the year 9999 is refused when the claims are written.
    Duration::from_secs(now.as_secs().saturating_add(ttl_seconds))
}

fn user_plaintext(args: &UserArgs, now: Duration) -> Result<Vec<u8>, CliError> {
    let claims = UserClaims {
        company: args.company.clone(),
        agent: args.agent.clone(),
        user: args.user.clone(),
        expires_at: expiry(now, args.ttl_seconds),
    };
    claims.write().map_err(|_| CliError::failed("--ttl-seconds reaches past the year 9999"))
}

fn admin_plaintext(args: &AdminArgs, now: Duration) -> Result<Vec<u8>, CliError> {
    let claims = AdminClaims::new(
        args.admin.clone(),
        args.company.as_deref(),
        args.agent.as_deref(),
        args.restriction.as_deref(),
        expiry(now, args.ttl_seconds),
    )
    .map_err(CliError::failed)?;
    claims.write(args.restriction.as_deref()).map_err(|_| CliError::failed("--ttl-seconds reaches past the year 9999"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_millis(1_700_000_000_900);

    fn admin(company: Option<&str>, restriction: Option<&str>) -> AdminArgs {
        AdminArgs {
            admin: AdminId::parse("root@example.com").unwrap(),
            company: company.map(str::to_owned),
            agent: None,
            restriction: restriction.map(str::to_owned),
            ttl_seconds: 60,
        }
    }

    #[test]
    fn a_users_plaintext_opens_as_its_claims() {
        let args = UserArgs {
            company: CompanyId::parse("acme").unwrap(),
            agent: AgentId::parse("a1").unwrap(),
            user: UserId::parse("sari").unwrap(),
            ttl_seconds: 60,
        };
        let claims = UserClaims::read(&user_plaintext(&args, NOW).unwrap(), NOW).unwrap();
        assert_eq!((claims.user.as_str(), claims.expires_at), ("sari", Duration::from_secs(1_700_000_060)));
    }

    #[test]
    fn an_admins_plaintext_opens_as_its_narrowed_claims() {
        let plaintext = admin_plaintext(&admin(None, Some("acme")), NOW).unwrap();
        let claims = AdminClaims::read(&plaintext, NOW).unwrap();
        assert_eq!((claims.company.as_str(), claims.agent.as_str()), ("acme", "*"));
    }

    #[test]
    fn nobody_gets_a_token_beyond_its_restriction_or_the_calendar() {
        assert!(admin_plaintext(&admin(Some("other"), Some("acme")), NOW).is_err());
        let mut args = admin(None, None);
        args.ttl_seconds = u64::MAX;
        assert!(admin_plaintext(&args, NOW).is_err());
    }
}
