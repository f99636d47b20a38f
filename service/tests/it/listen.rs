//! `listen`, as a process in a terminal, against a dev fleet of this process.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use daisi_ws_service::{
    cli::publish::{Target, publish_event},
    dev::{Fleet, Plan},
};
use serde_json::Value;

use crate::support::{config::test_config, http::send, shared_address::shared_address, wait};

/// Lines as they come.
type Lines = Arc<Mutex<Vec<String>>>;

/// A running `listen`. Killed, if need be, when it is dropped.
struct Listener {
    child: Child,
    frames: Lines,
    said: Lines,
}

fn lines(from: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let filled = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            filled.lock().unwrap().push(line);
        }
    });
    lines
}

impl Listener {
    /// Starts one whose secrets are in its environment, where no list of processes shows them.
    fn start(url: &str, more: &[&str]) -> Self {
        let config = test_config();
        let mut command = Command::new(env!("CARGO_BIN_EXE_daisi-ws-service"));
        command.args(["listen", "--url", url]).args(more).env_clear();
        command.env("DAISI_WS_AUTH_SECRET_TOKEN", config.auth.secret_token.expose());
        command.env("DAISI_WS_AUTH_TOKEN_AES_KEY", config.auth.token_aes_key.expose());
        command.env("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", config.auth.admin_token_aes_key.expose());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (frames, said) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, frames, said }
    }

    fn events(&self) -> Vec<(u64, bool)> {
        let frames = self.frames.lock().unwrap();
        let frames = frames.iter().map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"));
        let events = frames.filter(|frame| frame["type"] == "event");
        events.map(|frame| (frame["seq"].as_u64().unwrap(), frame["replayed"] == true)).collect()
    }

    async fn has(&self, count: usize) {
        wait::until("it has the events", || std::future::ready(self.events().len() >= count)).await;
    }

    async fn says(&self, what: &str) {
        let said = || self.said.lock().unwrap().iter().any(|line| line.contains(what));
        wait::until(what, || std::future::ready(said())).await;
    }

    /// As Ctrl-C does.
    async fn interrupt(mut self) -> (ExitStatus, String) {
        let sent = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = self.ended().await;
        self.says("to go on from here: --resume ").await;
        let said = self.said.lock().unwrap();
        let cursor = said.last().unwrap().rsplit(' ').next().unwrap().to_owned();
        drop(said);
        (status, cursor)
    }

    async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let mut status = None;
        wait::until("it ends", || {
            status = child.try_wait().unwrap();
            std::future::ready(status.is_some())
        })
        .await;
        status.unwrap()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- it printed ----\n{}", self.frames.lock().unwrap().join("\n"));
            eprintln!("---- it said ----\n{}", self.said.lock().unwrap().join("\n"));
        }
    }
}

/// Waits until a session of this address is told where it stands: a pod that has just begun does not know it.
async fn knows_places(url: &str) {
    wait::until("the pod knows where a session stands", || async {
        let listener = Listener::start(url, &["--user", "sari"]);
        listener.says("ready on dev-1").await;
        wait::until("it is printed", || std::future::ready(!listener.frames.lock().unwrap().is_empty())).await;
        listener.frames.lock().unwrap()[0].contains("\"stream\"")
    })
    .await;
}

#[tokio::test]
async fn a_listener_of_a_pod_that_drains_moves_to_another_and_prints_each_event_once() {
    let plan = Plan { pods: 2, nats: None, redis: None, base_port: 0 };
    let (fleet, config) = (Box::pin(Fleet::start(&plan, &test_config())).await.unwrap(), test_config());
    let pods: Vec<SocketAddr> = fleet.addresses().into_iter().map(|(_, address)| address).collect();
    let through = Target::DevFleet(format!("http://{}", pods[1]));
    let publish = async || publish_event(&through, "wa.acme.agent-7.chats", b"{}", &config).await.unwrap();
    // A balancer that takes notice before the pod asks anybody.
    let leads_to = Arc::new(Mutex::new(pods[0].to_string()));
    let (address, _balancer) = shared_address(Arc::clone(&leads_to)).await;
    let url = format!("ws://{address}/ws/acme/agent-7");
    knows_places(&url).await;
    let listener = Listener::start(&url, &["--user", "sari"]);
    listener.says("ready on dev-1").await;
    let published = Mutex::new(vec![publish().await]);
    *leads_to.lock().unwrap() = pods[1].to_string();
    let drain =
        format!("POST /dev/pods/dev-1/drain HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", pods[1]);
    let drained = send(pods[1], drain.as_bytes()).await;
    assert_eq!(drained.status, 200, "{}", drained.body);
    let said = |what: &str| listener.said.lock().unwrap().iter().any(|line| line.contains(what));
    wait::until("it has moved", || async {
        let seq = publish().await;
        published.lock().unwrap().push(seq);
        said("the socket before: closed with 1001 moved")
    })
    .await;
    let mut published = published.into_inner().unwrap();
    published.push(publish().await);
    listener.has(published.len()).await;
    assert!(said("asked to move within ") && said("ready on dev-2, resumed"), "it says what it does");
    let mut printed: Vec<u64> = listener.events().into_iter().map(|(seq, _)| seq).collect();
    printed.sort_unstable();
    assert_eq!(printed, published);
    assert!(listener.interrupt().await.0.success());
    fleet.shutdown().hard.cancel();
}

#[tokio::test]
async fn a_listener_prints_its_frames_and_the_next_one_goes_on_where_it_ended() {
    let plan = Plan { pods: 1, nats: None, redis: None, base_port: 0 };
    let fleet = Box::pin(Fleet::start(&plan, &test_config())).await.unwrap();
    let (config, address) = (test_config(), fleet.addresses()[0].1);
    let through = Target::DevFleet(format!("http://{address}"));
    let publish = async |subject: &str| {
        publish_event(&through, subject, b"{\"event_id\":\"1\",\n\"n\":9007199254740993}", &config).await.unwrap()
    };
    let (user, admin) = (format!("ws://{address}/ws/acme/agent-7"), format!("ws://{address}/ws/admin"));

    knows_places(&user).await;
    let first = Listener::start(&user, &["--user", "sari", "--chat", "c1"]);
    let root = Listener::start(&admin, &["--admin", "root"]);
    first.says("ready on dev-1").await;
    root.says("ready on dev-1").await;
    let live = [publish("wa.acme.agent-7.chats").await, publish("wa.acme.agent-7.messages.c1").await];
    let agents = publish("wa.acme.agent-7.agents").await;
    first.has(2).await;
    root.has(1).await;
    assert_eq!((first.events(), root.events()), (vec![(live[0], false), (live[1], false)], vec![(agents, false)]));
    assert!(first.frames.lock().unwrap().iter().any(|line| line.contains("9007199254740993")));
    let (status, cursor) = first.interrupt().await;
    assert!(status.success(), "{status}");

    let missed = [publish("wa.acme.agent-7.chats").await, publish("wa.acme.agent-7.messages.c1").await];
    let second = Listener::start(&user, &["--user", "sari", "--chat", "c1", "--resume", &cursor]);
    second.says("resumed: ").await;
    wait::until("it has what was missed", || std::future::ready(second.events().iter().any(|(seq, _)| *seq == missed[1]))).await;
    let replayed = second.events().into_iter().filter(|(seq, _)| missed.contains(seq)).collect::<Vec<_>>();
    assert_eq!(replayed, [(missed[0], true), (missed[1], true)]);

    // Whoever comes last has the session, and the one before does not fight for it.
    let mut second = second;
    let third = Listener::start(&user, &["--user", "sari"]);
    third.says("ready on dev-1").await;
    assert_eq!(second.ended().await.code(), Some(1));
    second.says("closed with 4402").await;
    assert!(third.interrupt().await.0.success());
    fleet.shutdown().hard.cancel();
}
