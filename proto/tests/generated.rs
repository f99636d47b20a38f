//! The committed code is what the schema generates.

use std::{fs, path::Path};

use protox::prost::Message as _;

/// Set to 1, it makes the test write what it would compare with.
const UPDATE: &str = "UPDATE_GENERATED";

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["dws_message_fwd.proto"], [root.join("proto")]).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("descriptor.bin"), descriptors.encode_to_vec()).unwrap();
    tonic_prost_build::configure()
        .bytes(".dws_message_fwd.ForwardedEvent.payload")
        .emit_rerun_if_changed(false)
        .out_dir(scratch.path())
        .compile_fds(descriptors)
        .unwrap();

    for name in ["dws_message_fwd.rs", "descriptor.bin"] {
        let committed = root.join("src/gen").join(name);
        let fresh = fs::read(scratch.path().join(name)).unwrap();
        if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
            fs::write(&committed, &fresh).unwrap();
        }
        let same = fs::read(&committed).unwrap_or_default() == fresh;
        assert!(
            same,
            "src/gen/{name} is not what the schema generates: run `{UPDATE}=1 cargo test -p daisi-ws-proto` and commit"
        );
    }
}
