//! The schema that pods speak to each other (`proto/dws_message_fwd.proto`) and the code generated from it.
//!
//! The generated files are committed, so that no build needs protoc or a build script; the test `generated_code_is_fresh`
//! compares them with the schema, and rewrites them when `UPDATE_GENERATED=1` is set. Payloads are `bytes::Bytes`: they are
//! shared with the received frame, not copied out of it.

/// Messages, client (`message_forwarding_service_client`) and server (`message_forwarding_service_server`) of package
/// `dws_message_fwd`.
pub mod dws_message_fwd {
    #![expect(missing_docs, reason = "generated: the comments are the schema's, and it does not repeat each field's name")]
    #![expect(unused_qualifications, reason = "generated: paths are spelt out so that no import is needed")]
    #![expect(clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated: tonic's own exceptions")]
    include!("gen/dws_message_fwd.rs");
}

/// The schema and what it imports, as an encoded `FileDescriptorSet`: what gRPC reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptor.bin");
