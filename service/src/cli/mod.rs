//! The commands: arguments, exit codes, and what each command needs before it can begin.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 78 (`EX_CONFIG`) wrong configuration. Output goes to standard output; logs and
//! errors go to standard error.

mod check_config;
pub mod dev;
mod dumps;
mod error;
mod healthcheck;
mod identity;
mod listen;
mod plain_http;
pub mod publish;
mod runtime;
pub mod serve;
pub mod token;

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode, sync::LazyLock, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};

pub(crate) use self::error::CliError;
use self::{identity::own_pod_id, runtime::block_on};
use crate::{
    config::{Config, Secrets, Sources},
    telemetry::{self, Chain, FlushedAtExit, LevelHandle},
};

/// How long what still blocks a thread of the runtime may hold up the exit.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(1);

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let revision = option_env!("DAISI_WS_REVISION").filter(|revision| !revision.is_empty()).unwrap_or("unknown revision");
    format!("{} ({revision})", env!("CARGO_PKG_VERSION"))
});

/// WebSocket gateway: delivers JetStream events to exactly the browser sessions that should see them.
#[derive(Debug, Parser)]
#[command(name = "daisi-ws-service", version = VERSION.as_str())]
struct Arguments {
    /// Configuration file; else the one that DAISI_WS_CONFIG names, else config/config.yaml if it exists.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs this pod of the gateway.
    Serve,
    /// Runs a whole fleet in this process, with a console page, for development.
    Dev(dev::Args),
    /// Makes a token with the configured key and prints it.
    #[command(subcommand)]
    Token(token::Args),
    /// Publishes an event.
    Publish(publish::Args),
    /// Listens as a session does, and prints what comes; goes on where it was.
    Listen(Box<listen::Args>),
    /// Checks the configuration and prints what is in force, without secrets.
    CheckConfig,
    /// Prints the completions of a shell: `source <(daisi-ws-service completions bash)`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Asks a pod on this host how it is: exit code 0 if it is well, else 1.
    Healthcheck(healthcheck::Args),
}

/// Runs the command that the process's arguments name, with the process's environment.
#[must_use]
pub fn main() -> ExitCode {
    let _flushed = FlushedAtExit;
    telemetry::log_panics();
    let mut errors = Vec::new();
    let code = run(std::env::args_os(), std::env::vars_os(), &mut io::stdout(), &mut errors);
    if !errors.is_empty() {
        telemetry::say(&String::from_utf8_lossy(&errors));
    }
    ExitCode::from(code)
}

/// Runs a command; the exit code comes back.
fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    out: &mut dyn io::Write,
    errors: &mut dyn io::Write,
) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let text = error.render();
            let _ = if error.use_stderr() { write!(errors, "{text}") } else { write!(out, "{text}") };
            return u8::try_from(error.exit_code()).unwrap_or(error::EXIT_FAILED);
        }
    };
    let sources = Sources::new(arguments.config, environment);
    match dispatch(arguments.command, &sources, out) {
        Ok(()) => 0,
        Err(error) => {
            if !matches!(error, CliError::Logged(_)) {
                let _ = writeln!(errors, "{}", error.report());
            }
            error.exit_code()
        }
    }
}

fn dispatch(command: Command, sources: &Sources, out: &mut dyn io::Write) -> Result<(), CliError> {
    match command {
        Command::Serve => {
            // Before the secrets are read.
            dumps::set(false);
            let config = sources.load(Secrets::Required)?;
            dumps::set(config.server.core_dumps);
            in_runtime(&config, async |level| Box::pin(serve::run(config.clone(), sources.clone(), level)).await)
        }
        Command::Dev(args) => {
            let config = sources.load(Secrets::Made)?;
            in_runtime(&config, async |_level| Box::pin(dev::run(&args, &config, out)).await)
        }
        Command::Token(args) => token::run(&args, sources, out),
        Command::Publish(args) => {
            let config = sources.load(Secrets::Only(&[]))?;
            block_on(publish::run(args, &config, io::stdin(), out))?
        }
        Command::Listen(args) => block_on(listen::run(*args, sources, io::stdin(), out))?,
        Command::CheckConfig => check_config::run(sources, out),
        Command::Completions { shell } => {
            // Into memory first: the generator panics where it can't write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "daisi-ws-service", &mut script);
            Ok(out.write_all(&script)?)
        }
        Command::Healthcheck(args) => healthcheck::run(&args, sources),
    }
}

/// Runs what serves: on all cores, with logs and traces, which are flushed however it ends.
fn in_runtime(config: &Config, work: impl AsyncFnOnce(LevelHandle) -> Result<(), CliError>) -> Result<(), CliError> {
    let pod = own_pod_id(config)?;
    // Sockets have threads of their own, one a processor core; what is left is a few busy tasks that mostly wait for one another,
    // and more threads for them only wake each other.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let telemetry = {
        let _context = runtime.enter();
        telemetry::init(&config.telemetry, pod.as_str())?
    };
    let ended = runtime.block_on(work(telemetry.level()));
    let ended = ended.map_err(|error| {
        tracing::error!(error = %Chain(&error), pod.id = %pod, "the gateway ends with an error");
        CliError::Logged(Box::new(error))
    });
    // In this order: the last traces leave through the runtime.
    drop(telemetry);
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    /// Exit code, output and errors of a command.
    fn command(arguments: &[&str], variables: &[(&str, &str)]) -> (u8, String, String) {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let arguments = std::iter::once("daisi-ws-service").chain(arguments.iter().copied()).map(OsString::from);
        let code = run(arguments, testing::environment(variables), &mut out, &mut errors);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
    }

    #[test]
    fn the_arguments_are_well_formed() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn wrong_usage_exits_with_2_and_help_with_0() {
        for bad in [&["bogus"][..], &[], &["serve", "--bogus"], &["dev", "--pods", "0"], &["token", "user", "--company", "a"]] {
            let (code, out, errors) = command(bad, &[]);
            assert_eq!((code, out.as_str()), (2, ""), "{bad:?}");
            assert!(errors.contains("--help") || errors.contains("Usage:"), "{errors}");
        }
        let (code, out, errors) = command(&["--help"], &[]);
        assert_eq!((code, errors.as_str()), (0, ""));
        for name in ["serve", "dev", "token", "publish", "listen", "check-config", "healthcheck"] {
            assert!(out.contains(name), "{out}");
        }
    }

    #[test]
    fn completions_know_every_command() {
        for shell in ["bash", "zsh", "fish"] {
            let (code, out, errors) = command(&["completions", shell], &[]);
            assert_eq!((code, errors.as_str()), (0, ""));
            for name in ["serve", "dev", "token", "publish", "listen", "check-config", "healthcheck", "completions"] {
                assert!(out.contains(name), "{shell}: {name}");
            }
        }
    }

    #[test]
    fn the_version_names_the_revision() {
        let (code, out, _) = command(&["--version"], &[]);
        assert_eq!(code, 0);
        assert!(out.starts_with("daisi-ws-service 0.1.0 ("), "{out}");
    }

    #[test]
    fn a_wrong_configuration_exits_with_78_and_names_every_key() {
        for name in ["serve", "check-config"] {
            let (code, out, errors) = command(&[name], &[("DAISI_WS_APP_MAX_CONNECTIONS", "0")]);
            assert_eq!((code, out.as_str()), (78, ""));
            let keys = ["app.max_connections", "auth.secret_token", "auth.token_aes_key", "auth.admin_token_aes_key"];
            for key in keys.into_iter().chain(["auth.token_generation_admin_key"]) {
                assert!(errors.contains(&format!("\n  {key} ")), "{key} in {errors}");
            }
        }
    }

    #[test]
    fn check_config_prints_what_is_in_force_without_secrets() {
        let mut variables = testing::SECRETS.to_vec();
        variables.push(("DAISI_WS_SERVER_HTTP_PORT", "9000"));
        variables.push(("DAISI_WS_SERVER_POD_ID", "ws-1"));
        variables.push(("DAISI_WS_SERVER_GRPC_ADVERTISE_ADDRESS", "10.0.0.1:50051"));
        let (code, out, errors) = command(&["check-config"], &variables);
        assert_eq!((code, errors.as_str()), (0, ""));
        assert!(out.contains("  http_port: 9000\n") && out.contains("  secret_token: \"<redacted>\"\n"), "{out}");
        assert!(out.starts_with("# This pod is ws-1; peers dial 10.0.0.1:50051.\n"), "{out}");
        assert!(testing::SECRETS.iter().all(|(_, secret)| !out.contains(secret)));
    }

    #[test]
    fn the_configuration_may_be_named_before_or_after_the_command() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "server: {http_port: 9100}").unwrap();
        let path = file.path().to_str().unwrap();
        for arguments in [["--config", path, "check-config"], ["check-config", "--config", path]] {
            let (_, out, _) = command(&arguments, testing::SECRETS);
            assert!(out.contains("  http_port: 9100\n"), "{out}");
        }
    }
}
