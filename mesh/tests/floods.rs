//! Members and strangers who take more than is theirs.

mod common;

use std::time::Duration;

use common::Plan;
use common::knock::Knock;
use futures::AsyncWriteExt as _;
use openfang_id::Transport;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_sends_and_nobody_reads_is_bounded() {
    let a = Plan::new(1).start().await;
    let mut knock = Knock::at(&a, Transport::Tcp).await;
    let mut first = knock.open().await;
    knock.say(&mut first, &[0]).await;
    // Before the gate nobody reads what is on further substreams.
    let mut taken = 0;
    let mut streams = Vec::new();
    for _stream in 0..100 {
        let mut stream = knock.open().await;
        let said = knock.drive(async {
            stream.write_all(&[7; 250_000]).await?;
            stream.flush().await
        });
        // What the sockets take on both sides is 10 MB at most.
        match tokio::time::timeout(Duration::from_millis(300), said).await {
            Ok(Ok(())) => taken += 1,
            Ok(Err(_)) | Err(_) => break,
        }
        streams.push(stream);
    }
    assert!(taken < 100, "25 MB were taken that nobody reads");
}
