//! TLS between pods: who gets through, what is said to anyone who does not, and certificates that change.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use daisi_ws_service::{
    adapters::grpc::{Tls, TlsError, TlsFiles},
    ports::{Handed, PeerError, Peers as _},
    telemetry::Chain,
};
use tempfile::TempDir;

use super::strangers::self_check;
use crate::support::peers::{GrpcCaller, GrpcPod, event};

fn openssl(folder: &Path, arguments: &[&str]) {
    let status = Command::new("openssl")
        .current_dir(folder)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(arguments)
        .stderr(Stdio::null())
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "can't make a certificate: run the tests with .ci/test, which brings openssl"
    );
}

/// Makes an authority and a pod's certificate of it, in place of those that are there.
fn certify(folder: &TempDir, names: &str) {
    let folder = folder.path();
    openssl(
        folder,
        &["-subj", "/CN=fleet", "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", "ca.key", "-out", "ca.pem"],
    );
    let names = format!("subjectAltName={names}");
    openssl(
        folder,
        &["-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=pod", "-addext", &names]
            .into_iter()
            .chain(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "pod.key", "-out", "pod.pem"])
            .collect::<Vec<_>>(),
    );
}

fn files(folder: &TempDir, name: Option<&str>) -> TlsFiles {
    let at = |name| folder.path().join(name);
    TlsFiles { certificate: at("pod.pem"), key: at("pod.key"), ca: at("ca.pem"), server_name: name.map(ToOwned::to_owned) }
}

/// TLS of a fleet with an authority of its own.
fn fleet(names: &str, name: Option<&str>) -> (TempDir, Tls) {
    let folder = TempDir::new().unwrap();
    certify(&folder, names);
    let tls = Tls::load(files(&folder, name)).unwrap();
    (folder, tls)
}

async fn pod(tls: &Tls) -> GrpcPod {
    GrpcPod::start_with("b", 1, |settings| settings.tls = Some(tls.clone())).await
}

fn caller(tls: Option<&Tls>) -> GrpcCaller {
    GrpcCaller::with("a", |settings| settings.tls = tls.cloned())
}

async fn push(caller: &GrpcCaller, pod: &GrpcPod) -> Result<Vec<Handed>, PeerError> {
    caller.peers.push(&pod.record, &[event("here", "chats", 1, "{}")]).await
}

#[tokio::test]
async fn pods_of_one_authority_reach_each_other_by_address_or_by_a_name_of_all() {
    for (names, name) in [("IP:127.0.0.1", None), ("DNS:pods.fleet", Some("pods.fleet"))] {
        let (_folder, tls) = fleet(names, name);
        let pod = pod(&tls).await;
        assert_eq!(push(&caller(Some(&tls)), &pod).await.unwrap(), vec![Handed::Taken]);
        assert!(self_check(&pod, &pod.record.address, Some(&tls)).serves().await);
    }
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_authority_is_refused_and_its_log_says_why() {
    let ((_folder, tls), (_other_folder, other)) = (fleet("IP:127.0.0.1", None), fleet("IP:127.0.0.1", None));
    let (secure, plain) = (pod(&tls).await, GrpcPod::start("b", 1).await);
    let refused = |answer: Result<Vec<Handed>, PeerError>, why: &str| match answer {
        Err(error @ PeerError::Unreachable(_)) => assert!(Chain(&error).to_string().contains(why), "{}", Chain(&error)),
        answer => panic!("{answer:?}"),
    };
    refused(push(&caller(Some(&other)), &secure).await, "certificate");
    refused(push(&caller(None), &secure).await, "");
    refused(push(&caller(Some(&tls)), &plain).await, "does it speak plain text");
    // A certificate of the authority for another name.
    let (_folder, misnamed) = fleet("DNS:elsewhere", None);
    refused(push(&caller(Some(&misnamed)), &pod(&misnamed).await).await, "certificate");
    assert!(secure.recorder.events().is_empty() && plain.recorder.events().is_empty());
}

#[tokio::test]
async fn a_certificate_that_changes_is_shown_to_who_comes_and_costs_no_open_connection() {
    let (folder, tls) = fleet("IP:127.0.0.1", None);
    let (pod, before) = (pod(&tls).await, caller(Some(&tls)));
    push(&before, &pod).await.unwrap();
    certify(&folder, "IP:127.0.0.1");
    tls.reload();
    let renewed = Tls::load(files(&folder, None)).unwrap();
    assert_eq!(push(&caller(Some(&renewed)), &pod).await.unwrap(), vec![Handed::Taken]);
    assert_eq!(push(&before, &pod).await.unwrap(), vec![Handed::Taken]);
    assert_eq!(before.metrics.grpc_pool_connections_created_total.get(), 1);
    // Half of a change is none.
    fs::write(folder.path().join("pod.key"), "").unwrap();
    tls.reload();
    assert_eq!(push(&caller(Some(&renewed)), &pod).await.unwrap(), vec![Handed::Taken]);
    assert!(matches!(Tls::load(files(&folder, None)), Err(TlsError::File { file, .. }) if file.ends_with("pod.key")));
}
