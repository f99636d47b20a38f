//! One address before several pods.

use std::sync::{Arc, Mutex};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// An address that leads to one pod or another, as one that the network gives away again.
pub(crate) async fn shared_address(leads_to: Arc<Mutex<String>>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, mut tasks) = (listener.local_addr().unwrap().to_string(), JoinSet::new());
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let to = leads_to.lock().unwrap().clone();
            open.spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, tasks)
}
