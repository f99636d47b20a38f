//! `listen`: a client in the terminal.

mod dial;
mod line;
mod moving;
mod place;

use std::{
    io::{self, Read as _, Write},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use daisi_ws_domain::{
    ids::{AdminId, AgentId, ChatId, CompanyId, UserId},
    resume::Cursor,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use self::{
    dial::{Address, Dialer, Ended},
    line::{Heard, Line, heard},
    moving::{Second, Wish, arrived},
    place::{Frame, Place},
};
use super::{error::CliError, token};
use crate::{
    config::{Secret, Secrets, Sources},
    runtime::backoff::Backoff,
    telemetry,
};

/// Waits between attempts, as those of the browser client.
const WAITS: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// So long a session must have lasted before waits begin small again.
const STABLE: Duration = Duration::from_secs(10);
/// A minted token lives as long as an attempt may take; each attempt has a new one.
const MINTED_SECONDS: u64 = 3600;
/// The longest token that is read, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;

/// Arguments of `listen`, which prints what a session is sent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Frames go to standard output, one a line; what happens to the connection goes to standard error. It \
    reconnects by itself and gets what it missed, and moves to another pod before its own goes.\n\nThe API key is auth.secret_token of the configuration. The token is made \
    with its key (--user, --admin), or read from a file at every attempt:\n\n  \
    export DAISI_WS_AUTH_SECRET_TOKEN_FILE=key DAISI_WS_AUTH_TOKEN_AES_KEY_FILE=aes\n  \
    daisi-ws-service listen --url wss://gw.example/ws/acme/agent-7 --user sari | jq .payload\n  \
    my-login | daisi-ws-service listen --url wss://gw.example/ws/acme/agent-7 --token-file - --resume 17c9a2:1041")]
pub(super) struct Args {
    /// Address of the session: ws:// or wss://, a host, and /ws/{company}/{agent} or /ws/admin. A key and token in its query
    /// (those of a dev fleet) are used.
    #[arg(long, value_parser = Address::parse)]
    url: Address,
    /// The user whose session it is; the token is made with auth.token_aes_key.
    #[arg(long, value_parser = UserId::parse, conflicts_with_all = ["admin", "token_file"])]
    user: Option<UserId>,
    /// The admin whose session it is; the token is made with auth.admin_token_aes_key and sees all.
    #[arg(long, value_parser = AdminId::parse, conflicts_with = "token_file")]
    admin: Option<AdminId>,
    /// File with the token; "-": standard input, read once.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Chat whose messages to get, in place of the saved one.
    #[arg(long, value_name = "CHAT", value_parser = ChatId::parse)]
    chat: Option<ChatId>,
    /// Where to go on: the cursor that an earlier `listen` has printed.
    #[arg(long, value_name = "STREAM:SAFE", value_parser = Cursor::parse)]
    resume: Option<Cursor>,
}

/// Where tokens come from.
enum Tokens {
    /// The address has one.
    InAddress,
    /// Standard input had one.
    Given(Secret),
    File(PathBuf),
    User(token::UserArgs),
    Admin(token::AdminArgs),
}

impl Tokens {
    fn new(args: &Args, input: impl io::Read) -> Result<Self, CliError> {
        let unclear = "whose session it is must be said: --user, --admin or --token-file";
        Ok(match (&args.user, &args.admin, &args.token_file) {
            (Some(user), _, _) => Self::User(user_args(&args.url, user)?),
            (_, Some(admin), _) => Self::Admin(token::AdminArgs::all_seeing(admin.clone(), MINTED_SECONDS)),
            (_, _, Some(file)) if file.as_os_str() == "-" => {
                let mut text = String::new();
                input.take(MAX_TOKEN).read_to_string(&mut text)?;
                Self::Given(Secret::new(text.trim()))
            }
            (_, _, Some(file)) => Self::File(file.clone()),
            (None, None, None) if args.url.has("token") => Self::InAddress,
            (None, None, None) => return Err(CliError::failed(unclear)),
        })
    }

    /// A token for the next attempt: files and keys may have changed since the last.
    fn next(&self, sources: &Sources) -> Result<Option<Secret>, CliError> {
        Ok(match self {
            Self::InAddress => None,
            Self::Given(token) => Some(token.clone()),
            Self::File(file) => Some(Secret::of_file(file).map_err(CliError::failed)?),
            Self::User(args) => Some(Secret::new(token::for_user(args, sources)?)),
            Self::Admin(args) => Some(Secret::new(token::for_admin(args, sources)?)),
        })
    }
}

fn user_args(url: &Address, user: &UserId) -> Result<token::UserArgs, CliError> {
    let (company, agent) = url.session().split_once('/').ok_or_else(|| CliError::failed("--user needs /ws/{company}/{agent}"))?;
    let (company, agent) = (CompanyId::parse(company), AgentId::parse(agent));
    let (company, agent) = (company.map_err(CliError::failed)?, agent.map_err(CliError::failed)?);
    Ok(token::UserArgs { company, agent, user: user.clone(), ttl_seconds: MINTED_SECONDS })
}

pub(super) async fn run(args: Args, sources: &Sources, input: impl io::Read, out: &mut dyn Write) -> Result<(), CliError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stop = Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    listen(args, sources, input, out, stop.as_mut()).await
}

/// Listens until `stop`, until nobody reads `out`, or for as long as another attempt may do.
async fn listen(
    args: Args,
    sources: &Sources,
    input: impl io::Read,
    out: &mut dyn Write,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), CliError> {
    let tokens = Tokens::new(&args, input)?;
    let (dialer, place) = (Arc::new(Dialer::new(args.url)?), Place::new(args.resume));
    let mut listener = Listener { dialer, tokens, sources, chat: args.chat, place, waits: WAITS, out };
    let failed = tokio::select! {
        biased;
        () = stop => None,
        error = listener.go_on() => Some(error),
    };
    if let Some(cursor) = listener.place.cursor() {
        say(&format!("to go on from here: --resume {cursor}"));
    }
    match failed {
        None => Ok(()),
        // Whoever read the frames has enough.
        Some(CliError::System(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Some(error) => Err(error),
    }
}

/// One line about the connection.
fn say(text: &str) {
    telemetry::say(&format!("{text}\n"));
}

struct Listener<'a> {
    dialer: Arc<Dialer>,
    tokens: Tokens,
    sources: &'a Sources,
    chat: Option<ChatId>,
    place: Place,
    waits: Backoff,
    out: &'a mut dyn Write,
}

impl Listener<'_> {
    /// Goes from socket to socket; returns why there will be no other.
    async fn go_on(&mut self) -> CliError {
        loop {
            let (what, at_least) = match self.once().await {
                Ok(Ended::ForNow(what, at_least)) => (what, at_least),
                Ok(Ended::ForGood(what)) => return CliError::failed(format!("{}: {what}", self.dialer.address)),
                Err(error) => return error,
            };
            let wait = wait(&mut self.waits, at_least);
            self.say(&format!("{what}; again in {:.1} s", wait.as_secs_f64()));
            sleep(wait).await;
        }
    }

    /// One socket and those that it moves to, from the first attempt to the last end.
    async fn once(&mut self) -> Result<Ended, CliError> {
        let line = match self.wish()?.dial().await {
            Ok(line) => line,
            Err(ended) => return Ok(ended),
        };
        let since = Instant::now();
        let ended = self.serve(line).await;
        if since.elapsed() >= STABLE {
            self.waits.reset();
        }
        ended
    }

    /// What the next attempt takes.
    fn wish(&self) -> Result<Wish, CliError> {
        let token = self.tokens.next(self.sources)?;
        let key = if self.dialer.address.has("x-api-key") {
            None
        } else {
            Some(self.sources.load(Secrets::Only(&["auth.secret_token"]))?.auth.secret_token)
        };
        let (chat, cursor) = (self.chat.clone(), self.place.cursor().cloned());
        Ok(Wish { dialer: Arc::clone(&self.dialer), key, token, chat, cursor })
    }

    /// Reads a socket, and the second one when it is asked to move, until none is left that has the session or may have it, or
    /// until standard output is closed.
    async fn serve(&mut self, line: Line) -> Result<Ended, CliError> {
        let (mut line, mut first, mut second) = (Some(line), None::<Line>, None::<Second>);
        let mut why = None;
        loop {
            tokio::select! {
                heard = heard(&mut line) => match heard {
                    Heard::Frame(text) => {
                        let asked = self.show(&text)?;
                        self.is_alive(line.as_mut());
                        if let Some(within) = asked.filter(|_| second.is_none()) {
                            self.place.hold();
                            second = Some(Second::new(self.wish()?, within));
                        }
                    }
                    Heard::Ended(ended) => {
                        close(line.take()).await;
                        if second.is_none() {
                            close(first).await;
                            return Ok(ended);
                        }
                        // It may be the second's take-over, whose `ready` is still on its way.
                        self.before(&ended);
                        why = Some(ended);
                    }
                },
                heard = heard(&mut first) => match heard {
                    Heard::Frame(text) => {
                        if self.place.beside(&text) == Frame::New {
                            self.print(&text)?;
                        }
                        self.is_alive(first.as_mut());
                    }
                    Heard::Ended(ended) => {
                        self.before(&ended);
                        close(first.take()).await;
                    }
                },
                arrived = arrived(&mut second) => match arrived {
                    Ok((next, ready)) => {
                        second = None;
                        close(first.take()).await;
                        first = line.replace(next);
                        self.place.let_go();
                        let stream = self.place.cursor().cloned();
                        self.show(&ready)?;
                        self.is_alive(line.as_mut());
                        // Of another stream, the first one's numbers mean nothing.
                        if stream.as_ref().map(Cursor::stream) != self.place.cursor().map(Cursor::stream) {
                            close(first.take()).await;
                        }
                    }
                    Err(ended) => {
                        let Some((under_way, wait)) = second.as_mut().and_then(|second| second.wait(&ended).map(|wait| (second, wait)))
                        else {
                            self.say(&format!("no second socket: {ended}"));
                            second = None;
                            self.place.let_go();
                            if let Some(why) = why.take() {
                                close(first).await;
                                return Ok(why);
                            }
                            continue;
                        };
                        self.say(&format!("no second socket: {ended}; again in {:.1} s", wait.as_secs_f64()));
                        under_way.again(self.wish()?, wait);
                    }
                },
            }
        }
    }

    fn is_alive(&self, line: Option<&mut Line>) {
        if let Some(line) = line {
            line.is_alive(self.place.cursor().is_some());
        }
    }

    /// Takes in a frame of the socket that has the session, and prints it. The time to move in, if that is what it asks for.
    fn show(&mut self, text: &str) -> Result<Option<Duration>, CliError> {
        match self.place.take(text) {
            Frame::Known | Frame::Echo => return Ok(None),
            Frame::Move { within, reason } => {
                self.say(&format!("asked to move within {:.1} s ({reason})", within.as_secs_f64()));
                return Ok(Some(within));
            }
            Frame::Ready(what) => self.say(&what),
            Frame::New => {}
        }
        self.print(text)?;
        Ok(None)
    }

    fn print(&mut self, text: &str) -> Result<(), CliError> {
        // Outside of strings JSON may have line ends, and within them none.
        let line = text.replace(['\n', '\r'], " ");
        writeln!(self.out, "{line}")?;
        Ok(self.out.flush()?)
    }

    /// The first socket of a move has ended.
    fn before(&self, ended: &Ended) {
        self.say(&format!("the socket before: {ended}"));
    }

    fn say(&self, what: &str) {
        say(&format!("{}: {what}", self.dialer.address));
    }
}

/// Ends a socket that may be there.
async fn close(line: Option<Line>) {
    if let Some(line) = line {
        line.close().await;
    }
}

/// The wait before the next attempt. A time that a gateway named gets jitter on top, for it named it to others too.
fn wait(waits: &mut Backoff, at_least: Duration) -> Duration {
    let longest = at_least * 5 / 4;
    Backoff::new(longest, longest).with_jitter(0.2).pause().max(waits.pause())
}

#[cfg(test)]
mod tests;
