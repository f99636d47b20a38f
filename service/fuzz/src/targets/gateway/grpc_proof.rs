//! Whether a proof is made up or changed: then its text, or changes of a good one.

use std::{sync::LazyLock, time::Duration};

use daisi_ws_service::adapters::grpc::{fuzzing as grpc, previous_proof, prove_call};

use super::{FLEET, ME, NOW, UNUSED};
use crate::input::{Input, edit};

const PATH: &str = "/dws_message_fwd.MessageForwardingService/PushBatch";

pub(in super::super) fn prepare() {
    LazyLock::force(&FLEET);
    LazyLock::force(&UNUSED);
    LazyLock::force(&ME);
}

pub(in super::super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    match input.byte() % 3 {
        0 => {
            let text = input.rest();
            assert!(!grpc::proves(&UNUSED, PATH, &ME, text, NOW), "a proof is made up");
            assert!(!grpc::proves_as_before(&UNUSED, text, NOW), "a proof is made up");
            if let Some(written) = grpc::proof_again(text) {
                assert!(written.len() <= 256, "a proof of {} bytes", written.len());
                assert_eq!(grpc::proof_again(written.as_bytes()).as_ref(), Some(&written));
            }
        }
        1 => {
            let body = input.part();
            let proof = prove_call(&FLEET, PATH, &ME, body, NOW);
            assert!(grpc::proves(&FLEET, PATH, &ME, proof.as_bytes(), NOW + Duration::from_secs(30)));
            assert!(!grpc::proves(&FLEET, PATH, &ME, proof.as_bytes(), NOW + Duration::from_secs(31)));
            let changed = edit(&proof, input.rest());
            // The same values may be written in other ways, and no others are proved.
            let is_same = grpc::proof_again(changed.as_bytes()).as_ref() == Some(&proof);
            assert_eq!(grpc::proves(&FLEET, PATH, &ME, changed.as_bytes(), NOW), is_same, "{changed}");
        }
        _ => {
            let proof = previous_proof(&FLEET, NOW);
            let changed = edit(&proof, input.rest());
            let fields = |text: &str| {
                let mut parts = text.split('.').skip(1);
                Some((parts.next()?.parse::<u64>().ok()?, parts.next()?.to_ascii_lowercase(), parts.next().is_none()))
            };
            let is_same = changed.starts_with("v1.") && fields(&changed) == fields(&proof);
            assert_eq!(grpc::proves_as_before(&FLEET, changed.as_bytes(), NOW), is_same, "{changed}");
        }
    }
}
