//! The first call over a connection: who is there?

use daisi_ws_domain::peer::PodRecord;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{
    errors::{Odd, peer_error},
    link::Connection,
    proving::{Prover, ProvingChannel},
};
use crate::{adapters::grpc::health_name, ports::PeerError};

/// A first hello may only bring the peer's clock.
const HELLO_TRIES: usize = 3;

/// Has the other end of a connection prove that it is just this pod, and asks whether it serves. Nothing is said that an unproved
/// caller could use.
pub(crate) async fn hello(prover: &Prover, connection: &Connection, to: &PodRecord) -> Result<(), PeerError> {
    let mut tries = 0..HELLO_TRIES;
    loop {
        let channel = ProvingChannel::over(connection.channel(), prover.clone(), to.clone(), connection.numbers());
        let answer = HealthClient::new(channel).check(HealthCheckRequest { service: health_name(&to.id) }).await;
        let status = match answer {
            Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => {
                connection.note_proof();
                return Ok(());
            }
            Ok(_) => return Err(PeerError::refused(Odd::NotServing)),
            Err(status) => status,
        };
        // A pod of ours whose clock differs says so, and the next proof is of its time.
        tries.next();
        if prover.clocks.learn(&to.id, &status, crate::runtime::clock::now()) && !tries.is_empty() {
            continue;
        }
        connection.end();
        return Err(match status.code() {
            Code::NotFound => PeerError::AnotherPod,
            _ => peer_error(&status),
        });
    }
}
