//! What the process lets others see of its secrets, as the binary that runs.

use std::{
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    process::{Child, Command, Stdio},
};

use crate::support::{
    fixture::{API_KEY, MINT_KEY, admin_key, user_key},
    wait,
};

/// A user with no rights; the tests' own if those have none to give away.
const NOBODY: u32 = 65_534;

/// A pod that waits for a NATS that is not there, run by somebody without rights.
struct Waiting(Child);

impl Waiting {
    fn start(variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daisi-ws-service"));
        command.arg("serve").env_clear().current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        command.envs([
            ("DAISI_WS_SERVER_HTTP_PORT", "0"),
            ("DAISI_WS_SERVER_GRPC_PORT", "0"),
            ("DAISI_WS_SERVER_BIND_ADDRESS", "127.0.0.1"),
            ("DAISI_WS_NATS_URL", "nats://127.0.0.1:1"),
            ("DAISI_WS_REDIS_ADDRESS", "127.0.0.1:1"),
            ("DAISI_WS_AUTH_SECRET_TOKEN", API_KEY),
            ("DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY", MINT_KEY),
            ("DAISI_WS_AUTH_TOKEN_AES_KEY", &user_key()),
            ("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", &admin_key()),
        ]);
        command.envs(variables.iter().copied());
        if runs_as_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        Self(command.spawn().expect("the binary starts"))
    }

    /// Who may look into its memory and environment: the kernel gives these files to root where the process may not be dumped.
    fn owner_of_its_memory(&self) -> Option<u32> {
        std::fs::metadata(format!("/proc/{}/environ", self.0.id())).ok().map(|file| file.uid())
    }

    fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.0.id())).map_or(0, Iterator::count)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn runs_as_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

#[tokio::test]
async fn nobody_but_root_looks_into_a_pod_and_the_kernel_dumps_it_nowhere() {
    let pod = Waiting::start(&[]);
    wait::until("its memory is nobody's but root's", || async { pod.owner_of_its_memory() == Some(0) }).await;
}

#[tokio::test]
async fn a_pod_may_be_dumped_and_profiled_where_that_is_wanted() {
    let pod = Waiting::start(&[("DAISI_WS_SERVER_CORE_DUMPS", "true")]);
    // Its threads are there, so the setting has been read.
    wait::until("it runs", || async { pod.threads() > 1 }).await;
    let me = std::fs::metadata("/proc/self").unwrap().uid();
    assert_eq!(pod.owner_of_its_memory(), Some(if me == 0 { NOBODY } else { me }));
}
